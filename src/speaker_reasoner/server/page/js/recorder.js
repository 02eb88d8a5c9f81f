/** The microphone: every second of it is kept in the browser until the server has it. */

import { addPart, beginTake, dropTake, fileOf, holding, takes } from "./keep.js";
import { $, ask, clock, count, h, icon, notice } from "./dom.js";
import { showLive } from "./live.js";

const MIMES = ["audio/webm;codecs=opus", "audio/ogg;codecs=opus", "audio/mp4"];
const SUFFIXES = { "audio/webm": "webm", "audio/ogg": "ogg", "audio/mp4": "m4a" };

let stop = null; // of the recording under way

export const isRecording = () => stop !== null;

/**
 * @param {function(File): Promise<boolean>} send whether the server has it now.
 * @param {function(): string} people how many speak.
 */
export function setUpRecorder(send, people) {
  $("record").onclick = () => record(send, people);
  for (const button of document.querySelectorAll("[data-record=stop]")) button.onclick = () => stop?.(true);
  $("record-drop").onclick = async () => {
    const sure = await ask("Throw this recording away?", "It has not been sent, and cannot be brought back.", [["Throw it away", true, "bad"], ["Go on recording", false]]);
    if (sure) stop?.(false);
  };
  drawKept(send);
}

async function record(send, people) {
  if (stop) return undefined;
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
  const type = (recorder.mimeType || mimeType || "audio/webm").split(";")[0];
  const name = `Recording ${new Date().toLocaleString("sv").slice(0, 16).replace(":", ".")}.${SUFFIXES[type] ?? "webm"}`;
  const take = { id: crypto.randomUUID?.() ?? String(Math.random()), name, type, began: Date.now() };
  return holding(take.id, () => recordHeld(stream, recorder, take, send, people));
}

async function recordHeld(stream, recorder, take, send, people) {
  const parts = [], began = Date.now();
  let number = 0, kept = true, last = Promise.resolve();
  const unkept = (error) => {
    if (kept) notice(`This browser cannot keep the recording while it goes on (${error?.message ?? error}); it is lost if this page is closed.`, { bad: true });
    kept = false;
  };
  await beginTake(take.id, take.name, take.type).catch(unkept);
  const context = new AudioContext(), meter = context.createAnalyser();
  context.createMediaStreamSource(stream).connect(meter);
  const wave = new Float32Array(meter.fftSize);
  const timer = setInterval(() => {
    meter.getFloatTimeDomainData(wave);
    $("level").value = Math.min(1, 4 * Math.sqrt(wave.reduce((sum, x) => sum + x * x, 0) / wave.length));
    for (const node of document.querySelectorAll("[data-record=time]")) node.textContent = clock((Date.now() - began) / 1000);
  }, 100);
  recorder.ondataavailable = ({ data }) => {
    if (!data.size) return;
    parts.push(data);
    if (kept) last = addPart(take, number++, data, (Date.now() - began) / 1000).catch(unkept);
  };
  const live = showLive(stream, $("speakers").checkValidity() ? people() : "");
  const wanted = await new Promise((resolve) => {
    let keep = true; // also when the microphone is pulled out
    stop = (answer) => { keep = answer; recorder.stop(); };
    recorder.onstop = () => resolve(keep);
    recorder.start(1000);
    show(true);
  });
  stop = null;
  live.stop();
  clearInterval(timer);
  context.close();
  for (const track of stream.getTracks()) track.stop();
  show(false);
  await last;
  const done = !wanted || await send(new File(parts, take.name, { type: take.type }));
  if (done) live.clear();
  if (done) await dropTake(take.id).catch(() => {});
  else setTimeout(() => drawKept(send)); // after the lock was let go
}

function show(on) {
  $("recording").hidden = !on;
  $("mic-on").hidden = !on;
  $("intake").classList.toggle("busy", on);
  document.body.classList.toggle("recording-now", on);
  dispatchEvent(new Event("recording"));
  (on ? $("record-stop") : $("record")).focus({ preventScroll: true });
}

/** Offer what was recorded and never reached the server. */
export async function drawKept(send) {
  const kept = await takes();
  const again = () => drawKept(send);
  $("kept").hidden = !kept.length;
  $("kept").querySelector("ul").replaceChildren(...kept.map((take) => h(
    "li", {}, h("span", {}, h("b", {}, take.name), ` ${clock(take.seconds)}`),
    h("button", { type: "button", class: "button small primary", onclick: async () => {
      await holding(take.id, async () => {
        const file = await fileOf(take);
        if (!file) notice("Nothing of this recording was kept.", { bad: true });
        if (!file || await send(file)) await dropTake(take.id);
      });
      again();
    } }, "Send it"),
    h("button", { type: "button", class: "button small", onclick: async () => {
      const file = await fileOf(take);
      if (!file) return;
      const link = h("a", { href: URL.createObjectURL(file), download: take.name });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
    } }, "Save as a file"),
    h("button", { type: "button", class: "icon", "aria-label": `Throw ${take.name} away`, onclick: async () => {
      if (!await ask(`Throw ${take.name} away?`, `${count(Math.round(take.seconds), "second")} that nobody has but this browser. This cannot be undone.`, [["Throw it away", true, "bad"], ["Keep it", false]])) return;
      await dropTake(take.id);
      again();
    } }, icon("trash")),
  )));
}
