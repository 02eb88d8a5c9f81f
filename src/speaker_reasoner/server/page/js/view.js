/** One open recording: connects what is known of it with the waveform, the lanes and the lines. */

import { ApiError } from "./api.js";
import { $, ask, clock, count, describe, h, icon, notice } from "./dom.js";
import { state, updateJob } from "./jobs.js";
import { Lanes } from "./lanes.js";
import { isUnderWay, Recording } from "./store.js";
import { showTrace } from "./trace.js";
import { Transcript } from "./transcript.js";
import { Waveform } from "./waveform.js";
import { plain } from "./words.js";

const FRAME_MS = 16;
const CALM_MS = 500; // lines that come within are told to screen readers together

/** Tell of a failure that the server has words for; anything else is a bug and stays one. */
export function complain(error) {
  if (!(error instanceof ApiError)) throw error;
  notice(error.message, { bad: true });
}

export class View {
  #closed = false;
  #opened = false; // whether the job, and its document if there is one, was fetched
  #loaded = false; // whether the waveform was asked for
  #follows = true;
  #watched = false; // whether it was under way a moment ago
  #onHand = (event) => { if (!event.target.closest?.("input, textarea")) this.#leave(); };
  #unsaid = [];
  #lines; // draws the lines soon

  constructor(id) {
    this.recording = new Recording(id);
    this.waveform = new Waveform($("wave"));
    for (const place of ["title", "facts", "warnings", "empty"]) $(place).replaceChildren();
    const { recording, waveform } = this;
    const hear = (segment) => waveform.play(segment.start, segment.end);
    this.lanes = new Lanes($("lanes"), $("names"), {
      recording, waveform, hear: (segment) => { hear(segment); this.transcript.focus(segment.id); },
    });
    this.transcript = new Transcript($("lines"), {
      recording, waveform, hear,
      select: (segment) => this.#select(segment),
      trace: (segment) => showTrace(recording, waveform, segment).catch(complain),
      renameSpeaker: (label) => this.lanes.rename(label),
      listenAgain: (chunk) => this.#listenAgain(chunk),
    });
    this.#connect();
    for (const name of ["wheel", "touchmove"]) addEventListener(name, this.#onHand, { passive: true });
    $("follow").onclick = () => this.follow();
  }

  /** Fetch it. @returns {Promise<boolean>} whether the server knows it. */
  async open() {
    try {
      await this.recording.open();
      this.#opened = true;
      this.#lines();
      if (!this.#closed) $("title").focus({ preventScroll: true });
    } catch (error) {
      $("title").textContent = "This recording could not be opened";
      if (error.status !== 404) complain(error);
      else notice("This recording is not here. If somebody deleted it, it may be in the bin.", { bad: true });
      return error.status !== 404;
    }
    return true;
  }

  close() {
    this.#closed = true;
    this.transcript.close();
    this.recording.close();
    for (const name of ["wheel", "touchmove"]) removeEventListener(name, this.#onHand);
    $("follow").hidden = true;
    this.waveform.destroy();
  }

  #connect() {
    const { recording, waveform, lanes } = this;
    const on = (source, name, act) => source.addEventListener(name, ({ detail }) => { if (!this.#closed) act(detail); });
    const lines = this.#lines = this.#soon(() => this.#drawLines());
    const listening = this.#soon(() => this.#drawListening());
    const trouble = (text) => notice(text, { bad: true });
    on(recording, "job", () => { this.#drawHead(); listening(); lines(); });
    on(recording, "lines", () => { lines(); listening(); });
    on(recording, "listening", listening);
    on(recording, "heard", (segment) => this.#announce(segment));
    on(recording, "corrected", ({ op }) => {
      const done = { merge: "Merged.", delete: "Deleted." }[op];
      if (done) notice(done, { action: ["Undo", () => recording.correct({ op: "undo" })] });
    });
    on(recording, "trouble", trouble);
    on(recording, "elsewhere", () => notice("Somebody else has corrected this transcript; here is what it says now."));
    on(recording, "conflict", (what) => this.#settle(what));
    on(recording, "edit", (id) => this.transcript.edit(id));
    on(waveform, "trouble", trouble);
    on(waveform, "view", () => lanes.follow());
    on(waveform, "ready", () => { lines(); this.#drawTime(); });
    on(waveform, "time", () => this.#drawTime());
    on(waveform, "playing", () => this.#drawPlaying());
  }

  /** Do it once before the next frame, however often it is asked for until then. */
  #soon(act) {
    let asked = false;
    return () => {
      if (asked) return;
      asked = true;
      setTimeout(() => {
        asked = false;
        if (!this.#closed) act();
      }, FRAME_MS);
    };
  }

  /** What one did and what somebody else did to the same line or speaker: one of them has to be chosen. */
  async #settle({ op, again }) {
    const { recording } = this;
    const segment = recording.segments.find((one) => one.id === op.segment);
    if (op.segment && !segment) {
      if (op.text) notice(`Somebody deleted the line that you changed to “${op.text}”.`, { bad: true, lasting: true });
      else notice("Not done: somebody else has deleted this line.", { bad: true });
      return;
    }
    const theirs = segment ? `${recording.name(segment.speaker)}, ${clock(segment.start, 1)}: “${segment.text}”` : "another name";
    const mine = op.text !== undefined ? `“${op.text}”` : { move: `said by ${op.speaker}`, delete: "delete it", rename: op.name }[op.op] ?? "your change";
    const keep = await ask("Somebody else changed this meanwhile", [`It now says: ${theirs}`, `Yours: ${mine}`], [["Use mine", true], ["Leave theirs", false]]);
    if (keep) await again();
    else if (op.op === "edit") this.transcript.draw();
  }

  /** Listen again to a stretch; what was corrected in it by hand stays, unless one wants otherwise. */
  async #listenAgain(chunk) {
    const { recording } = this;
    const mine = recording.segments.filter((one) => one.chunk === chunk && one.corrected).length;
    const span = recording.document.chunks.find((one) => one.chunk === chunk);
    const keep = !mine || await ask(
      "Listen again", `Between ${clock(span.start)} and ${clock(span.end)}, ${count(mine, "line was", "lines were")} corrected by hand.`,
      [["Keep them", true], ["Replace them too", false, "bad"], ["Do not listen", null]],
    );
    if (keep !== null) await recording.correct({ op: "listen", chunk, keep });
  }

  /** Go with what is played; scrolling by hand leaves it, the button takes it up again. */
  follow() {
    this.#follows = true;
    $("follow").hidden = true;
    this.#drawTime(true);
  }

  #leave() {
    if (!this.#follows || !this.waveform.playing) return;
    this.#follows = false;
    $("follow").hidden = false;
  }

  #select(segment) {
    this.transcript.chosen(segment.id);
    this.lanes.select(segment.id);
    this.waveform.reveal(segment.start);
  }

  #drawHead() {
    const { recording, recording: { job, editable, document: doc } } = this;
    updateJob(job);
    document.title = `${job.name} · Speaker Reasoner`;
    $("title").textContent = job.name;
    $("length").textContent = job.duration ? `of ${clock(job.duration, 1)}` : "";
    $("undo").disabled = !editable || !doc.can_undo;
    $("redo").disabled = !editable || !doc.can_redo;
    $("export").disabled = doc === null;
  }

  #drawLines() {
    const { recording, transcript } = this;
    const follow = transcript.atEnd && isUnderWay(recording.job) && !recording.document;
    this.lanes.draw();
    transcript.draw();
    this.#drawFacts();
    if (follow) transcript.toEnd();
    this.#loadWaveform();
  }

  /** Last: of ten hours it is 3.6 MB, and one reads before one listens. */
  #loadWaveform() {
    if (this.#loaded || !this.#opened || !this.recording.job.duration) return;
    this.#loaded = true;
    this.waveform.load(this.recording.id);
  }

  #drawFacts() {
    const { job, document: doc, segments, speakers } = this.recording;
    const parts = job.status === "done" || segments.length
      ? [clock(job.duration), speakers.length && count(speakers.length, "speaker"), segments.length && count(segments.length, "line")]
      : [state(job)];
    $("facts").textContent = parts.filter(Boolean).join(" · ");
    const failed = job.error ? [h("li", { class: "bad" }, job.error.message)] : [];
    const waits = job.problem ? [h("li", { class: "bad" }, `It waits, and goes on by itself: ${job.problem}`)] : [];
    const warnings = (doc?.warnings ?? []).map((text) => {
      const said = plain(text);
      return h("li", {}, said, said === text ? null : h("details", {}, h("summary", {}, "In detail"), text));
    });
    $("warnings").replaceChildren(...failed, ...waits, ...warnings);
    if (this.#watched && doc && warnings.length) $("warnings").scrollIntoView({ block: "center", behavior: "smooth" });
    this.#watched = isUnderWay(job) || (this.#watched && !doc && job.status === "done");
    $("retry").hidden = !["failed", "cancelled"].includes(job.status);
    const silent = !segments.length && !isUnderWay(job);
    const why = { done: "No speech was heard in this recording.", cancelled: "Stopped before the first line." };
    $("empty").hidden = !silent;
    $("empty").textContent = silent ? why[job.status] ?? "There is no transcript." : "";
  }

  #drawListening() {
    const { job, document: doc, overviews, now } = this.recording;
    const under = isUnderWay(job);
    this.lanes.drawBoxes();
    this.waveform.show({ now: [...now.values()], heard: under && !doc ? job.position : Infinity, missing: doc?.missing ?? [] });
    $("listening").hidden = !under;
    if (!under) return;
    const box = [...now.values()].at(-1);
    const overview = overviews.get(box?.chunk) ?? [...overviews.values()].at(-1);
    const parts = [job.status === "queued" ? "Waiting for its turn" : doc ? "Listening again" : "Listening"];
    if (overview) parts.push(`hears ${describe(overview.speakers)}`);
    if (box) parts.push(`now ${clock(box.start, 1)} to ${clock(box.end, 1)}`);
    $("listening").querySelector("p").replaceChildren(...parts.flatMap((part, k) => [k ? " " : "", h("span", {}, part + (k + 1 < parts.length ? " ·" : ""))]));
  }

  #drawTime(seek = false) {
    const { time, playing } = this.waveform;
    const heard = playing ? this.recording.segments.filter(({ start, end }) => start <= time && time < end) : [];
    const current = new Set(heard.map((segment) => segment.id));
    $("now").textContent = clock(time, 1);
    this.lanes.mark(time, current);
    this.transcript.mark(current, time, seek || (this.#follows && playing));
  }

  #drawPlaying() {
    const { playing } = this.waveform;
    $("play").replaceChildren(icon(playing ? "pause" : "play"));
    $("play").setAttribute("aria-label", playing ? "Pause" : "Play");
    if (!playing) { this.#follows = true; $("follow").hidden = true; }
    this.#drawTime();
  }

  /** Read new lines to screen readers; a flood only as its number. */
  #announce(segment) {
    if (this.#unsaid.push(segment) > 1) return;
    setTimeout(() => {
      const fresh = this.#unsaid.splice(0);
      const said = fresh.length > 3 ? [count(fresh.length, "line")] : fresh.map((one) => `${one.speaker}: ${one.text}`);
      if (!this.#closed) $("spoken").replaceChildren(...said.map((text) => h("p", {}, text)));
    }, CALM_MS);
  }
}
