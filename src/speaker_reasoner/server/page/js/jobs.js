/** The list of recordings this server knows. */

import { get } from "./api.js";
import { $, clock, count, h, setVars } from "./dom.js";
import { isUnderWay } from "./store.js";

const POLL_MS = 3000;

let jobs = [];
let current = null;
let timer = 0;

/** Fetch the list, and go on while something is under way. */
export async function refreshJobs() {
  clearTimeout(timer);
  try {
    jobs = (await get("v1/jobs")).data;
    draw();
  } catch { /* the open recording says that the server is gone; try again below */ }
  timer = setTimeout(refreshJobs, jobs.some(isUnderWay) ? POLL_MS : 10 * POLL_MS);
}

/** Take over what is known of one job, without asking for all. */
export function updateJob(job) {
  const at = jobs.findIndex((one) => one.id === job.id);
  if (at < 0) jobs.unshift(job);
  else jobs[at] = job;
  draw();
}

export function markCurrent(id) {
  current = id;
  draw();
}

/** One line about a job's state. */
export function state(job) {
  switch (job.status) {
    case "queued": return job.queue_position ? `waiting, ${job.queue_position} before it` : "waiting";
    case "running": return job.duration ? `listening, ${clock(job.position)} of ${clock(job.duration)}` : "listening";
    case "failed": return "failed";
    case "cancelled": return "stopped";
    default: return [clock(job.duration), job.speakers ? count(job.speakers, "speaker") : null].filter(Boolean).join(" · ");
  }
}

function draw() {
  const had = document.activeElement?.closest?.("#jobs a")?.dataset.id;
  $("jobs").replaceChildren(...jobs.map((job) => {
    const link = h(
      "a",
      { href: `#${job.id}`, class: `job ${job.status}`, "data-id": job.id, "aria-current": job.id === current ? "page" : null },
      h("span", {}, job.name), h("small", {}, state(job)), isUnderWay(job) ? h("i", { class: "bar" }) : null,
    );
    setVars(link, { done: `${job.duration ? (100 * job.position) / job.duration : 0}%` });
    return h("li", {}, link);
  }));
  if (had) $("jobs").querySelector(`[data-id="${CSS.escape(had)}"]`)?.focus();
}
