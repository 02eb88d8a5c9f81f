/** The page: which recording is open, its buttons, and the keyboard. */

import { download, get, jobPath, request } from "./api.js";
import { $, h, menu } from "./dom.js";
import { setUpIntake } from "./intake.js";
import { markCurrent, refreshJobs, updateJob } from "./jobs.js";
import { isUnderWay } from "./store.js";
import { complain, View } from "./view.js";

const EXPORTS = [
  ["txt", "Text", ".txt"], ["md", "Markdown", ".md"], ["json", "JSON, everything", ".json"],
  "Subtitles", ["srt", "SubRip", ".srt"], ["vtt", "WebVTT", ".vtt"],
  "For research", ["rttm", "RTTM", ".rttm"], ["stm", "STM", ".stm"], ["ctm", "CTM", ".ctm"],
  ["seglst", "SegLST", ".seglst.json"], ["textgrid", "Praat TextGrid", ".TextGrid"],
];
const KEYS = [
  ["Space", "Play or pause"], ["J  K  ↓  ↑", "Next or previous line"], ["L", "Hear the line"], ["Enter", "Edit the line"],
  ["Escape", "Leave without saving"], ["Delete", "Delete the line"], ["T", "How it listened"], ["Ctrl Z", "Undo"],
  ["Ctrl Shift Z", "Redo"], ["+  −", "Zoom"], ["?", "This help"],
];
const ZOOM = 1.5;

let view = null;

/** Open the recording that the address names, or none. */
async function show() {
  const id = location.hash.slice(1);
  view?.close();
  view = null;
  document.body.dataset.view = id ? "job" : "home";
  $("home").hidden = Boolean(id);
  for (const place of ["export", "undo", "redo"]) $(place).disabled = true; // until the recording is there
  $("retry").hidden = true;
  $("job").hidden = !id;
  document.title = "Speaker Reasoner";
  markCurrent(id);
  if (!id) return;
  view = new View(id);
  view.waveform.rate(Number($("rate").value));
  if (!await view.open()) location.hash = "";
}

async function exportAs(format, suffix) {
  const { id, job } = view.recording;
  const stem = job.name.replace(/\.\w{2,5}$/, "") || "transcript";
  await download(`${jobPath(id, "/transcript")}?format=${format}`, stem + suffix).catch(complain);
}

/** DELETE stops a job that is under way and removes one that has ended. */
async function remove() {
  const { id, job } = view.recording;
  try {
    await request(jobPath(id), { method: "DELETE" });
  } catch (error) {
    return complain(error);
  }
  if (!isUnderWay(job)) location.hash = "";
  return refreshJobs();
}

/** A job that failed or was stopped goes on where it was. */
async function retry() {
  try {
    updateJob(await (await request(jobPath(view.recording.id, "/retry"), { method: "POST" })).json());
  } catch (error) {
    return complain(error);
  }
  return show();
}

function onKey(event) {
  const { target, key } = event;
  if (target.closest("input, textarea, select, dialog, [popover]") || event.altKey) return;
  const commanded = event.ctrlKey || event.metaKey;
  const step = (by) => () => view?.transcript.step(by);
  const zoom = (factor) => () => view?.waveform.zoom(factor);
  const act = commanded
    ? { z: () => $(event.shiftKey ? "redo" : "undo").click(), y: () => $("redo").click() }[key.toLowerCase()]
    : {
      "?": () => $("help").showModal(),
      " ": target.closest("button, a") ? null : () => view?.waveform.toggle(),
      j: step(1), ArrowDown: step(1), k: step(-1), ArrowUp: step(-1),
      "+": zoom(ZOOM), "=": zoom(ZOOM), "-": zoom(1 / ZOOM), Escape: () => document.activeElement.blur(),
    }[key];
  if (!act || (!view && key !== "?")) return;
  event.preventDefault();
  act();
}

$("undo").onclick = () => view.recording.correct({ op: "undo" });
$("redo").onclick = () => view.recording.correct({ op: "redo" });
$("play").onclick = () => view.waveform.toggle();
$("rate").onchange = () => view.waveform.rate(Number($("rate").value));
$("zoom-in").onclick = () => view.waveform.zoom(ZOOM);
$("zoom-out").onclick = () => view.waveform.zoom(1 / ZOOM);
$("listening").querySelector("button").onclick = remove;
$("export").onclick = () => menu($("export"), EXPORTS.map((one) =>
  (typeof one === "string" ? one : { label: one[1], note: one[2], run: () => exportAs(one[0], one[2]) })));
$("job-more").onclick = () => menu($("job-more"), [isUnderWay(view.recording.job)
  ? { label: "Stop listening", icon: "stop", run: remove }
  : { label: "Delete recording and transcript", icon: "trash", bad: true, run: remove }]);
$("retry").onclick = retry;
$("help").querySelector("dl").append(...KEYS.flatMap(([keys, what]) =>
  [h("dt", {}, ...keys.split(/ +/).map((key) => h("kbd", {}, key))), h("dd", {}, what)]));
$("help-button").onclick = () => $("help").showModal();
for (const button of document.querySelectorAll("[data-close]")) button.onclick = () => button.closest("dialog").close();
addEventListener("keydown", onKey);
addEventListener("hashchange", show);

get("v1/models").then(({ data: [{ id, domain }] }) => {
  $("model").textContent = `Model: ${id}${domain ? ` (${domain})` : ""}`;
}, () => {});
setUpIntake((job) => { updateJob(job); location.hash = job.id; });
refreshJobs();
show();
