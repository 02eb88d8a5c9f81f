/** One job as this page knows it: what the server said, and the corrections sent to it. */

import { events, get, jobPath, post } from "./api.js";

const COLOURS = 8;
const UNDER_WAY = ["queued", "running"];

export const isUnderWay = (job) => UNDER_WAY.includes(job.status);

/**
 * Events: `job` (its state changed), `lines` (speakers or segments changed), `listening` (an overview or a
 * box came), `heard` (detail: one new segment), `corrected` (detail: the operation), `trouble` (a message).
 */
export class Recording extends EventTarget {
  job = null;
  document = null; // of the finished transcript, corrections applied; null while the first is being made
  overviews = new Map(); // by number of the chunk
  boxes = [];
  now = new Map(); // the box that is being listened to, by number of its chunk
  #live = new Map(); // provisional segments by id
  #met = []; // labels in order of arrival
  #ordered = null; // the segments, until they change
  #lastId = null;
  #reading = false;
  #past = false; // the events that arrive are of a job that had ended before it was opened
  #abort = new AbortController();
  #queue = Promise.resolve();

  constructor(id) {
    super();
    this.id = id;
  }

  async open() {
    this.#setJob(await get(jobPath(this.id)));
    this.#past = !isUnderWay(this.job);
    if (this.#past) await this.#load();
    this.#listen();
  }

  close() {
    this.#abort.abort();
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
    return this.document?.speakers.find((speaker) => speaker.label === label)?.name ?? label;
  }

  /** A label that no speaker has. */
  get newLabel() {
    const taken = new Set(this.speakers.flatMap(({ label, name }) => [label, name]));
    for (let n = 1; ; n += 1) if (!taken.has(`Speaker${n}`)) return `Speaker${n}`;
  }

  /** Number of a speaker's colour: the document's, before that in order of appearance. */
  colour(label) {
    if (!this.#met.includes(label)) this.#met.push(label);
    const known = this.document?.speakers.find((speaker) => speaker.label === label);
    return (known?.colour ?? this.#met.indexOf(label)) % COLOURS;
  }

  /** Send one correction after those before it. @returns {Promise<boolean>} whether it was taken. */
  correct(op) {
    const sent = this.#queue.then(() => this.#send(op));
    this.#queue = sent;
    return sent;
  }

  async #send(op) {
    try {
      const answer = await post(jobPath(this.id, "/corrections"), { revision: this.document.revision, ...op });
      if (op.op === "listen") {
        this.#past = false;
        this.#setJob(answer);
        this.#listen();
      } else this.#setDocument(answer);
      this.#emit("corrected", op);
      return true;
    } catch (error) {
      if (error.status === 409) {
        await this.#load();
        this.#emit("trouble", `Not changed, since the transcript is no longer the one you saw: ${error.message} Here is the current one.`);
      } else this.#emit("trouble", error.message);
      return false;
    }
  }

  async #load() {
    try {
      this.#setDocument(await get(jobPath(this.id, "/document")));
    } catch (error) {
      if (![404, 409].includes(error.status)) this.#emit("trouble", error.message); // else: none was made
    }
  }

  /** Follow the events until the job has ended, over broken connections. */
  async #listen() {
    if (this.#reading) return;
    this.#reading = true;
    const { signal } = this.#abort;
    while (!signal.aborted) {
      try {
        for await (const event of events(jobPath(this.id, "/events"), this.#lastId, signal)) {
          this.#lastId = event.id;
          await this.#take(event.event, event.data);
        }
        if (!isUnderWay(this.job)) break;
      } catch (error) {
        if (error.status >= 400 && error.status < 500) break;
      }
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
    this.#reading = false;
  }

  async #take(event, data) {
    if (event === "job" && !this.#past) this.#setJob(data);
    else if (event === "overview") this.overviews.set(data.chunk, data);
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
    } else if (event === "done" && !(data.revision <= this.document?.revision)) await this.#load();
    if (["overview", "box"].includes(event)) this.#emit("listening");
    if (["segment", "relabel"].includes(event) && !this.document) this.#emit("lines");
  }

  #setJob(job) {
    this.job = job;
    if (!isUnderWay(job)) this.now.clear();
    this.#emit("job");
  }

  #setDocument(document) {
    this.document = document;
    this.#emit("lines");
    this.#emit("job");
  }

  #emit(name, detail) {
    if (name === "lines") this.#ordered = null;
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}
