/** The list of recordings this server knows, page by page, and the bin. */

import { get, jobPath, post, request } from "./api.js";
import { $, ask, clock, count, h, icon, notice, setVars } from "./dom.js";
import { isUnderWay } from "./store.js";

const POLL_MS = 3000;
const PAGE = 50;
const TYPING_MS = 250;

let jobs = [];
let more = false;
let shown = PAGE;
let bin = false;
let current = null;
let timer = 0;
let restored = () => {};

/** @param {function(Object)} act called with a recording that was brought back. */
export const onRestored = (act) => { restored = act; };

export function setUpJobs() {
  const search = $("search");
  let typing = 0;
  search.oninput = () => {
    clearTimeout(typing);
    typing = setTimeout(() => { shown = PAGE; refreshJobs(); }, TYPING_MS);
  };
  $("more-jobs").onclick = () => { shown += PAGE; refreshJobs(); };
  $("bin").onclick = () => { bin = !bin; shown = PAGE; refreshJobs(); };
}

/** Fetch the list, and go on while something is under way. */
export async function refreshJobs() {
  clearTimeout(timer);
  const query = new URLSearchParams({ limit: String(Math.min(1000, shown)), removed: String(bin) });
  if ($("search").value.trim()) query.set("search", $("search").value.trim());
  try {
    const page = await get(`v1/jobs?${query}`);
    jobs = page.data;
    more = page.has_more;
    draw();
  } catch { /* the connection says that the server is gone; try again below */ }
  timer = setTimeout(refreshJobs, jobs.some(isUnderWay) ? POLL_MS : 10 * POLL_MS);
}

/** Take over what is known of one job, without asking for all. */
export function updateJob(job) {
  if (bin) return;
  const at = jobs.findIndex((one) => one.id === job.id);
  if (at >= 0) jobs[at] = job;
  else if (!$("search").value.trim()) jobs.unshift(job);
  draw();
}

export function markCurrent(id) {
  current = id;
  draw();
}

/** One line about a job's state. */
export function state(job) {
  if (job.problem) return "waits for the server's disk";
  switch (job.status) {
    case "queued": return job.queue_position ? `waiting, ${job.queue_position} before it` : "waiting";
    case "running": return job.duration ? `listening, ${clock(job.position)} of ${clock(job.duration)}` : "listening";
    case "failed": return "failed";
    case "cancelled": return "stopped";
    default: return [clock(job.duration), job.speakers ? count(job.speakers, "speaker") : null].filter(Boolean).join(" · ");
  }
}

const day = (seconds) => new Date(seconds * 1000).toLocaleDateString(undefined, { day: "numeric", month: "short", year: "numeric" });

function draw() {
  const had = document.activeElement?.closest?.("#jobs a")?.dataset.id;
  $("jobs").replaceChildren(...jobs.map(bin ? binned : listed));
  $("bin").textContent = bin ? "Back to recordings" : "Bin";
  $("bin").setAttribute("aria-pressed", String(bin));
  $("jobs-title").textContent = bin ? "In the bin" : "Recordings";
  $("more-jobs").hidden = !more;
  $("search").hidden = !bin && !more && jobs.length < 8 && !$("search").value;
  $("no-jobs").hidden = jobs.length > 0 || (!bin && !$("search").value);
  $("no-jobs").textContent = bin ? "The bin is empty." : "No recording has this in its name.";
  if (had) $("jobs").querySelector(`[data-id="${CSS.escape(had)}"]`)?.focus();
}

function listed(job) {
  const link = h(
    "a",
    { href: `#${job.id}`, class: `job ${job.status}`, "data-id": job.id, title: job.created ? `${job.name}, ${day(job.created)}` : job.name, "aria-current": job.id === current ? "page" : null },
    h("span", {}, job.name), h("small", {}, state(job)), isUnderWay(job) ? h("i", { class: "bar" }, h("i")) : null,
  );
  setVars(link, { done: String(job.duration ? job.position / job.duration : 0) });
  return h("li", {}, link);
}

function binned(job) {
  const back = async () => {
    try {
      const whole = await post(jobPath(job.id, "/restore"), {});
      bin = false;
      await refreshJobs();
      restored(whole);
    } catch (error) { notice(error.message, { bad: true }); }
  };
  const erase = async () => {
    if (!await ask(`Delete “${job.name}” for good?`, "Its audio, transcript and corrections are gone then, and cannot be brought back.", [["Delete for good", true, "bad"], ["Keep it in the bin", false]])) return;
    try {
      await request(`${jobPath(job.id)}?erase=true`, { method: "DELETE" });
    } catch (error) { notice(error.message, { bad: true }); }
    refreshJobs();
  };
  return h(
    "li", { class: "binned" }, h("span", {}, job.name), h("small", {}, `removed ${day(job.removed)}`),
    h("button", { type: "button", class: "icon", "aria-label": `Bring ${job.name} back`, title: "Bring it back", onclick: back }, icon("undo")),
    h("button", { type: "button", class: "icon", "aria-label": `Delete ${job.name} for good`, title: "Delete for good", onclick: erase }, icon("trash")),
  );
}
