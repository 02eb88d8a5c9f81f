/** One job as this page knows it: what the server said, and the corrections sent to it. */

import { connection, events, get, jobPath, post } from "./api.js";

const COLOURS = 8;
const PATTERNS = 3;
const WORDS_S = 3 * 3600; // longer recordings come without the times of their words
const told = "BroadcastChannel" in window ? new BroadcastChannel("speaker-reasoner") : null;
const UNDER_WAY = ["queued", "running"];

export const isUnderWay = (job) => UNDER_WAY.includes(job.status);

/** What an operation is about, as far as another's change to it would matter. */
function subjects(document, op) {
  const line = (id) => {
    const { start, end, text, speaker } = document.segments.find((one) => one.id === id) ?? {};
    return { start, end, text, speaker };
  };
  const person = (label) => document.speakers.find((one) => one.label === label || one.name === label)?.name;
  switch (op.op) {
    case "edit": case "move": case "split": case "delete": return [line(op.segment)];
    case "join": return [line(op.segment), line(op.other)];
    case "rename": case "gender": return [person(op.speaker)];
    case "merge": return [person(op.from), person(op.into)];
    case "add": return [];
    default: return null; // undo, redo and listen mean what is there
  }
}

/**
 * Events: `job` (its state changed), `lines` (speakers or segments changed), `listening` (an overview or a
 * box came), `heard` (detail: one new segment), `corrected` (detail: the operation), `elsewhere` (somebody else
 * corrected it), `conflict` (detail: {op, theirs, again}: made on a line that somebody else has changed), `trouble`
 * (a message).
 */
export class Recording extends EventTarget {
  job = null;
  document = null; // of the finished transcript, corrections applied; null while the first is being made
  overviews = new Map(); // by number of the chunk
  boxes = [];
  now = new Map(); // the box that is being listened to, by number of its chunk
  #live = new Map(); // provisional segments by id
  #met = new Map(); // labels in order of arrival, with their numbers
  #people = new Map(); // speakers of the document by label
  #ordered = null; // the segments, until they change
  #lastId = null;
  #reading = false;
  #past = false; // the events that arrive are of a job that had ended before it was opened
  #abort = new AbortController();
  #following = null; // aborts the stream while nobody looks
  #queue = Promise.resolve();
  #onNews = ({ data }) => { if (data.job === this.id) this.catchUp(); };
  #onSight = () => (document.hidden ? this.#rest() : this.catchUp().then(() => this.#listen()));
  #onLink = () => { if (connection.state === "ok") this.catchUp().then(() => this.#listen()); };

  constructor(id) {
    super();
    this.id = id;
  }

  async open() {
    this.#setJob(await get(jobPath(this.id)));
    this.#past = !isUnderWay(this.job);
    if (this.#past) await this.#load();
    told?.addEventListener("message", this.#onNews);
    document.addEventListener("visibilitychange", this.#onSight);
    connection.addEventListener("change", this.#onLink);
    this.#listen();
  }

  close() {
    this.#abort.abort();
    this.#following?.abort();
    told?.removeEventListener("message", this.#onNews);
    document.removeEventListener("visibilitychange", this.#onSight);
    connection.removeEventListener("change", this.#onLink);
  }

  /** A finished one is not followed while nobody looks: browsers have few connections to spare. */
  #rest() {
    if (this.job && !isUnderWay(this.job)) this.#following?.abort();
  }

  /** Take over what changed meanwhile, here or elsewhere. */
  async catchUp() {
    let job;
    try {
      job = await get(jobPath(this.id));
    } catch {
      return; // told by the state of the connection
    }
    await this.#takeJob(job);
  }

  async #takeJob(job) {
    const { document: doc } = this;
    const waits = this.job && isUnderWay(this.job);
    this.#setJob(job);
    if (job.status !== "done" || (doc && doc.revision === job.revision && !waits)) return;
    await this.#queue; // what is being sent answers with a newer document
    if (this.document && this.document.revision >= job.revision) return;
    const others = this.document !== null && !waits;
    await this.#load();
    if (others) this.#emit("elsewhere");
  }

  get #words() {
    return (this.job?.duration ?? 0) < WORDS_S ? "?words=true" : "";
  }

  get editable() {
    return this.document !== null && !isUnderWay(this.job);
  }

  /** In order of start. */
  get segments() {
    const all = () => this.document?.segments ?? [...this.#live.values()];
    return (this.#ordered ??= all().toSorted((a, b) => a.start - b.start || a.end - b.end));
  }

  /** In order of appearance, or as the document lists them. */
  get speakers() {
    if (this.document) return this.document.speakers;
    const found = new Map();
    for (const { speaker, gender } of this.segments) {
      if (!found.has(speaker)) found.set(speaker, { label: speaker, name: speaker, gender });
    }
    return [...found.values()];
  }

  get duration() {
    return this.document?.duration ?? this.job?.duration ?? 0;
  }

  name(label) {
    return this.#people.get(label)?.name ?? label;
  }

  /** A label that no speaker has. */
  get newLabel() {
    const taken = new Set(this.speakers.flatMap(({ label, name }) => [label, name]));
    for (let n = 1; ; n += 1) if (!taken.has(`Speaker${n}`)) return `Speaker${n}`;
  }

  /** Number of a speaker's colour: the document's, before that in order of appearance. */
  colour(label) {
    if (!this.#met.has(label)) this.#met.set(label, this.#met.size);
    return this.#people.get(label)?.colour ?? this.#met.get(label);
  }

  /** The classes that give it that colour, with a pattern after the first eight. */
  paint(label) {
    const number = this.colour(label);
    return number < COLOURS ? `c${number}` : `c${number % COLOURS} p${1 + (Math.floor(number / COLOURS) - 1) % PATTERNS}`;
  }

  /** Send one correction after those before it. @returns {Promise<boolean>} whether it was taken. */
  correct(op) {
    const sent = this.#queue.then(() => this.#send(op));
    this.#queue = sent;
    return sent;
  }

  async #send(op) {
    for (let tries = 0; ; tries += 1) {
      const before = this.document;
      try {
        const answer = await post(jobPath(this.id, `/corrections${this.#words}`), { revision: before.revision, ...op });
        if (op.op === "listen") {
          this.#past = false;
          this.#setJob(answer);
          this.#listen();
        } else this.#setDocument(answer);
        told?.postMessage({ job: this.id });
        this.#emit("corrected", op);
        return true;
      } catch (error) {
        if (error.code !== "stale_revision" || tries > 4) {
          if (error.status === 409 || error.status === 404) await this.#load();
          this.#emit("trouble", error.message);
          return false;
        }
        await this.#load();
        const [was, is] = [subjects(before, op), subjects(this.document, op)];
        if (was !== null && JSON.stringify(was) === JSON.stringify(is)) continue; // about something else: goes beside it
        const again = () => this.correct(op);
        this.#emit("conflict", { op, before, again });
        return false;
      }
    }
  }

  async #load() {
    try {
      this.#setDocument(await get(jobPath(this.id, `/document${this.#words}`)));
    } catch (error) {
      if (![404, 409].includes(error.status)) this.#emit("trouble", error.message); // else: none was made
    }
  }

  /** Follow the events, over broken connections, and after the end what others correct. */
  async #listen() {
    if (this.#reading) return;
    this.#reading = true;
    const { signal } = this.#abort;
    while (!signal.aborted) {
      this.#following = new AbortController();
      try {
        for await (const event of events(jobPath(this.id, "/events?follow=true"), this.#lastId, this.#following.signal)) {
          this.#lastId = event.id;
          await this.#take(event.event, event.data);
        }
      } catch (error) {
        if (error.status >= 400 && error.status < 500) break;
      }
      if (signal.aborted || (document.hidden && this.job && !isUnderWay(this.job))) break;
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
    this.#reading = false;
  }

  async #take(event, data) {
    if (event === "job") await this.#takeJob(data);
    else if (event === "anew") { // by another version: events before it are void
      this.#live.clear();
      this.overviews.clear();
      this.now.clear();
      this.boxes = [];
    } else if (event === "overview") this.overviews.set(data.chunk, data);
    else if (event === "box") {
      this.boxes.push(data);
      if (!this.#past) this.now.set(data.chunk, data);
    } else if (event === "segment") {
      this.#live.set(data.id, data);
      if (this.now.get(data.chunk)?.turn === data.turn) this.now.delete(data.chunk);
      if (!this.document) this.#emit("heard", data);
    } else if (event === "relabel") {
      for (const [id, speaker] of Object.entries(data.labels)) {
        const segment = this.#live.get(id);
        if (segment) this.#live.set(id, { ...segment, speaker });
      }
    }
    if (["anew", "overview", "box"].includes(event)) this.#emit("listening");
    if (["anew", "segment", "relabel"].includes(event) && !this.document) this.#emit("lines");
  }

  #setJob(job) {
    this.job = job;
    if (!isUnderWay(job)) this.now.clear();
    this.#emit("job");
  }

  #setDocument(document) {
    this.document = document;
    this.#people = new Map(document.speakers.map((one) => [one.label, one]));
    this.#emit("lines");
    this.#emit("job");
  }

  #emit(name, detail) {
    if (name === "lines") this.#ordered = null;
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}
