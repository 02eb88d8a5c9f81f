/** How recordings come in: dropped, chosen, or recorded here. */

import { upload } from "./api.js";
import { $, clock, notice } from "./dom.js";
import { checkPeople, peopleFields, setUpPeople } from "./people.js";

const MIMES = ["audio/webm;codecs=opus", "audio/ogg;codecs=opus", "audio/mp4"];
const SUFFIXES = { "audio/webm": "webm", "audio/ogg": "ogg", "audio/mp4": "m4a" };

/** @param {function(Object)} oncreated called with the new job. */
export function setUpIntake(oncreated) {
  let sending = null;

  async function send(file) {
    const speakers = $("speakers");
    if (sending) return notice("A recording is being sent; wait for it, or cancel it.");
    if (!speakers.reportValidity() || !checkPeople()) return undefined;
    const wanted = speakers.value.replace(/\s/g, "").replace("–", "-");
    sending = new AbortController();
    const bar = $("uploading");
    bar.hidden = false;
    bar.querySelector("b").textContent = file.name;
    try {
      const fields = { ...(wanted ? { speakers: wanted } : {}), ...await peopleFields() };
      const job = await upload(file, fields, (done) => { bar.querySelector("progress").value = done; }, sending.signal);
      speakers.value = "";
      oncreated(job);
    } catch (error) {
      if (error.name !== "AbortError") notice(error.message, { bad: true });
    } finally {
      sending = null;
      bar.hidden = true;
    }
    return undefined;
  }

  $("uploading").querySelector("button").onclick = () => sending?.abort();
  $("intake").onsubmit = (event) => event.preventDefault();
  $("file").onchange = (event) => {
    const [file] = event.target.files;
    event.target.value = "";
    if (file) send(file);
  };
  setUpPeople();
  setUpDrop(send);
  setUpRecorder(send);
}

function setUpDrop(send) {
  const veil = $("drop");
  const isFile = (event) => event.dataTransfer.types.includes("Files");
  addEventListener("dragenter", (event) => { if (isFile(event)) veil.hidden = false; });
  addEventListener("dragover", (event) => { if (isFile(event)) event.preventDefault(); });
  addEventListener("dragleave", (event) => { if (!event.relatedTarget) veil.hidden = true; });
  addEventListener("drop", (event) => {
    if (!isFile(event)) return;
    event.preventDefault();
    veil.hidden = true;
    const [file, ...more] = event.dataTransfer.files;
    if (more.length) notice(`One at a time: taking ${file.name}.`);
    location.hash = "";
    send(file);
  });
}

function setUpRecorder(send) {
  let stop = null;

  async function record() {
    if (!navigator.mediaDevices || !window.MediaRecorder) {
      return notice("This browser records only over https or on localhost.", { bad: true });
    }
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ audio: true });
    } catch (error) {
      return notice(`The microphone is not available: ${error.message}`, { bad: true });
    }
    const mimeType = MIMES.find((mime) => MediaRecorder.isTypeSupported(mime));
    const recorder = new MediaRecorder(stream, mimeType ? { mimeType } : {});
    const parts = [], began = Date.now();
    const context = new AudioContext(), meter = context.createAnalyser();
    context.createMediaStreamSource(stream).connect(meter);
    const wave = new Float32Array(meter.fftSize);
    const timer = setInterval(() => {
      meter.getFloatTimeDomainData(wave);
      $("level").value = Math.min(1, 4 * Math.sqrt(wave.reduce((sum, x) => sum + x * x, 0) / wave.length));
      $("recorded").textContent = clock((Date.now() - began) / 1000);
    }, 100);
    let keep = false;
    recorder.ondataavailable = (event) => parts.push(event.data);
    recorder.onstop = () => {
      clearInterval(timer);
      context.close();
      stream.getTracks().forEach((track) => track.stop());
      show(false);
      const type = recorder.mimeType.split(";")[0];
      const name = `Recording ${new Date().toLocaleString("sv").slice(0, 16).replace(":", ".")}.${SUFFIXES[type] ?? "webm"}`;
      if (keep) send(new File(parts, name, { type }));
    };
    recorder.start(1000);
    stop = (wanted) => { keep = wanted; recorder.stop(); };
    show(true);
    return undefined;
  }

  function show(on) {
    $("recording").hidden = !on;
    $("intake").classList.toggle("busy", on);
    (on ? $("record-stop") : $("record")).focus();
  }

  $("record").onclick = record;
  $("record-stop").onclick = () => stop(true);
  $("record-drop").onclick = () => stop(false);
}
