/** How recordings come in: dropped, chosen, or recorded here. */

import { upload } from "./api.js";
import { $, notice } from "./dom.js";
import { checkPeople, peopleFields, setUpPeople } from "./people.js";
import { isRecording, setUpRecorder } from "./recorder.js";

let sending = null;
let refused = null; // what was said of the last try

/** How many people speak, as the server takes it. */
const people = () => $("speakers").value.replace(/\s/g, "").replace("–", "-");

/** Whether something is on its way that a closed page would lose or stop. */
export const isBusy = () => sending !== null || isRecording();

/** @param {function(Object)} oncreated called with the new job. */
export function setUpIntake(oncreated) {
  /** @param {boolean} kept whether it can be sent from elsewhere later. @returns {Promise<boolean>} whether the server has it. */
  async function send(file, kept = false) {
    const speakers = $("speakers");
    if (sending) {
      notice("A recording is being sent; wait for it, or cancel it.");
      return false;
    }
    refused?.remove();
    const again = kept ? null : ["Send again", () => send(file)];
    if (!speakers.reportValidity() || !checkPeople()) {
      if (location.hash) location.hash = "";
      refused = notice(`Not sent yet: ${file.name}. Correct the marked field first.`, { bad: true, lasting: true, action: again });
      return false;
    }
    const wanted = people();
    sending = new AbortController();
    const bar = $("uploading");
    bar.hidden = false;
    bar.querySelector("b").textContent = file.name;
    try {
      const fields = { ...(wanted ? { speakers: wanted } : {}), ...await peopleFields() };
      const job = await upload(file, fields, (done) => { bar.querySelector("progress").value = done; }, sending.signal);
      speakers.value = "";
      oncreated(job);
      return true;
    } catch (error) {
      if (error.name !== "AbortError") refused = notice(`Not sent: ${error.message}`, { bad: true, action: again });
      return false;
    } finally {
      sending = null;
      bar.hidden = true;
    }
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
  setUpRecorder((file) => send(file, true), people);
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
