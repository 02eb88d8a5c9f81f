/** The page: which recording is open, its buttons, and the keyboard. */

import { askAgain, connection, download, get, jobPath, post, request } from "./api.js";
import { $, ask, clock, count, h, menu, notice } from "./dom.js";
import { isBusy, setUpIntake } from "./intake.js";
import { markCurrent, onRestored, refreshJobs, setUpJobs, updateJob } from "./jobs.js";
import { isRecording } from "./recorder.js";
import { isUnderWay } from "./store.js";
import { complain, View } from "./view.js";

const EXPORTS = [
  ["txt", "Text", ".txt"], ["md", "Markdown", ".md"], ["json", "JSON, everything", ".json"],
  ["docx", "Minutes to print or edit", ".docx"],
  "Subtitles", ["srt", "SubRip", ".srt"], ["vtt", "WebVTT", ".vtt"], ["ass", "Lanes of colour", ".ass"],
  "For research", ["rttm", "RTTM", ".rttm"], ["stm", "STM", ".stm"], ["ctm", "CTM", ".ctm"],
  ["seglst", "SegLST", ".seglst.json"], ["textgrid", "Praat TextGrid", ".TextGrid"],
];
const CAPTIONS = ["srt", "vtt", "ass"];
const KEYS = [
  ["Space", "Play or pause"], ["J  K  ↓  ↑", "Next or previous line"], ["L", "Hear the line"], ["Enter", "Edit the line"],
  ["Ctrl Enter", "Cut the line at the cursor, while editing"], ["Escape", "Leave without saving"], ["G", "Join with the next line"],
  ["A", "Add a line after it"], ["1  …  9", "Give it to that speaker"], ["S", "Choose who says it"], ["Delete", "Delete the line"],
  ["M", "All that can be done with it"], ["T", "How it listened"], ["F", "Follow what is played"],
  ["Ctrl Z", "Undo"], ["Ctrl Shift Z", "Redo"], ["+  −", "Zoom"], ["?", "This help"],
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
  const genders = CAPTIONS.includes(format) && !showsGenders() ? "&genders=false" : "";
  await download(`${jobPath(id, "/transcript")}?format=${format}${genders}`, stem + suffix).catch(complain);
}

const showsGenders = () => localStorage.getItem("speaker-reasoner-genders") !== "no";

function exports() {
  const items = EXPORTS.map((one) => (typeof one === "string" ? one : { label: one[1], note: one[2], run: () => exportAs(one[0], one[2]) }));
  const at = items.indexOf("For research");
  items.splice(at, 0, { label: "Genders in subtitles", note: showsGenders() ? "✓" : "", run: () => {
    localStorage.setItem("speaker-reasoner-genders", showsGenders() ? "no" : "yes");
    menu($("export"), exports());
  } });
  return items;
}

/** End what is under way; nothing is ever removed by this, whatever the page believes. */
async function stop() {
  try {
    await post(jobPath(view.recording.id, "/cancel"), {});
    await view?.recording.catchUp();
  } catch (error) {
    return complain(error);
  }
  return refreshJobs();
}

/** Put a recording into the bin, after asking; there is a way back. */
async function remove() {
  const { id, job, segments } = view.recording;
  const hand = job.revision ? ` ${count(job.revision, "correction was", "corrections were")} made by hand.` : "";
  const what = `${clock(job.duration)} of audio${segments.length ? ` and its transcript of ${count(segments.length, "line")}` : ""}.${hand}`;
  if (!await ask(`Delete “${job.name}”?`, [what, "It goes to the bin, from which it can be brought back for a while."], [["Delete", true, "bad"], ["Keep it", false]])) return;
  try {
    const { restorable_until: until } = await (await request(jobPath(id), { method: "DELETE" })).json();
    const days = Math.max(1, Math.round((until - Date.now() / 1000) / 86400));
    notice(`In the bin for ${days === 1 ? "a day" : `${days} days`}.`, { action: ["Bring it back", () => restore(id)] });
  } catch (error) {
    if (error.status !== 507) return complain(error);
    const sure = await ask("The server's disk is full", "There is no room for the bin. Deleting it for good makes room, and cannot be undone.", [["Delete for good", true, "bad"], ["Keep it", false]]);
    if (!sure) return;
    try {
      await request(`${jobPath(id)}?erase=true`, { method: "DELETE" });
    } catch (failed) {
      return complain(failed);
    }
  }
  if (location.hash.slice(1) === id) location.hash = "";
  return refreshJobs();
}

async function restore(id) {
  try {
    updateJob(await post(jobPath(id, "/restore"), {}));
    location.hash = id;
  } catch (error) {
    complain(error);
  }
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
      f: () => view?.follow(),
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
$("listening").querySelector("button").onclick = stop;
$("export").onclick = () => menu($("export"), exports());
$("job-more").onclick = () => menu($("job-more"), [isUnderWay(view.recording.job)
  ? { label: "Stop listening", icon: "stop", run: stop }
  : { label: "Delete recording and transcript", icon: "trash", bad: true, run: remove }]);
$("retry").onclick = retry;
$("help").querySelector("dl").append(...KEYS.flatMap(([keys, what]) =>
  [h("dt", {}, ...keys.split(/ +/).map((key) => h("kbd", {}, key))), h("dd", {}, what)]));
$("help-button").onclick = () => $("help").showModal();
for (const button of document.querySelectorAll("[data-close]")) button.onclick = () => button.closest("dialog").close();
addEventListener("keydown", onKey);
addEventListener("hashchange", show);

/** Nothing that only this page has is lost by closing it without a word. */
addEventListener("beforeunload", (event) => {
  if (isBusy() || view?.transcript.unsaved) event.preventDefault();
});

/** Say so while the server is lost or wants a key, and when it is back. */
function showConnection() {
  const { state } = connection;
  $("lost").hidden = state === "ok";
  $("lost").querySelector("p").textContent = state === "key"
    ? "This server asks for a key." : "The server cannot be reached. What you typed is kept here; trying again…";
  $("lost").querySelector("button").hidden = state !== "key";
  if (state === "ok") begin();
}
connection.addEventListener("change", showConnection);
$("lost").querySelector("button").onclick = async () => { if (await askAgain()) show(); };

addEventListener("recording", () => {
  document.title = `${isRecording() ? "● " : ""}${document.title.replace(/^● /, "")}`;
});

/** On a small screen the waveform makes room while one reads; it comes back at the top, or when asked. */
const stage = document.querySelector(".stage");
let grown = false;
addEventListener("scroll", () => {
  if (scrollY < 60) grown = false;
  if (scrollY < 60 || scrollY > 420) stage.classList.toggle("small", scrollY > 420 && !grown);
}, { passive: true });
$("grow").onclick = () => { grown = true; stage.classList.remove("small"); };

async function begin() {
  refreshJobs();
  try {
    const { data: [{ id, domain }] } = await get("v1/models");
    $("model").textContent = `Model: ${id}${domain ? ` (${domain})` : ""}`;
  } catch { /* told by the state of the connection */ }
}

setUpJobs();
onRestored((job) => { location.hash = job.id; });
setUpIntake((job) => { updateJob(job); location.hash = job.id; });
begin();
show();
