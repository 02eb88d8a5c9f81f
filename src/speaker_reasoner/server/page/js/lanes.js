/** One row for each speaker on the waveform's time axis, with names that can be changed and merged. */

import { clock, h, markOnly, menu, rename, setVars } from "./dom.js";

const MANY = 1500;
const TICKS_S = [0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600];

export class Lanes {
  #inner = h("div", { class: "lanes-inner" });
  #boxes = h("div", { class: "boxes", "aria-hidden": "true" });
  #ticks = h("div", { class: "ticks", "aria-hidden": "true" });
  #rows = h("div", { class: "rows" });
  #head = h("div", { class: "playhead", "aria-hidden": "true" });
  #blocks = new Map();
  #marked = new Set();
  #selected = null;
  #namesKey = null; // whose names were drawn
  #manyKey = null; // which part of very many lines was drawn
  #boxesOf = null; // the array whose boxes were drawn
  #width = 0; // of the whole recording, in px

  /**
   * @param {HTMLElement} place of the rows. @param {HTMLElement} names a list, beside the rows.
   * @param {{recording, waveform, hear: function(Object)}} with_
   */
  constructor(place, names, { recording, waveform, hear }) {
    Object.assign(this, { place, names, recording, waveform, hear });
    this.#inner.append(this.#boxes, this.#ticks, this.#rows, this.#head);
    place.replaceChildren(this.#inner);
    place.onwheel = waveform.onWheel;
    place.onclick = (event) => {
      const { left, width } = this.#inner.getBoundingClientRect();
      if (!event.target.closest("button")) waveform.seek(((event.clientX - left) / width) * recording.duration);
    };
  }

  draw() {
    const { recording } = this;
    const { segments, speakers, duration } = recording;
    if (!duration) return;
    const before = this.#blocks;
    this.#blocks = new Map();
    const rows = speakers.map((speaker) => h("div", { class: `row ${recording.paint(speaker.label)}` }));
    const index = new Map(speakers.map((speaker, k) => [speaker.label, k]));
    const many = segments.length > MANY;
    for (const segment of many ? this.#merged(segments) : segments) {
      if (segment.merged) {
        rows[index.get(segment.speaker)]?.append(this.#put(h("div", { class: "block" }), segment));
        continue;
      }
      const said = `${recording.name(segment.speaker)}, ${clock(segment.start, 1)}: ${segment.text}`;
      const block = before.get(segment.id) ?? h("button", { type: "button", class: "block new", tabindex: "-1", onanimationend: () => block.classList.remove("new") });
      block.title = said;
      block.setAttribute("aria-label", said);
      block.onclick = () => this.hear(segment);
      this.#put(block, segment);
      rows[index.get(segment.speaker)]?.append(block);
      this.#blocks.set(segment.id, block);
    }
    this.#manyKey = many || this.recording.boxes.length > MANY ? this.#viewKey() : null;
    const marks = [
      ...(recording.document?.missing ?? []).map((gap) => [gap, "missing", `Not transcribed: ${gap.reason}`]),
      ...(many ? [] : overlaps(segments)).map((both) => [both, "both", "More than one speaks"]),
    ].map(([span, kind, title]) => this.#put(h("div", { class: `mark ${kind}`, title }), span));
    this.#rows.replaceChildren(...marks, ...rows);
    this.#drawNames(speakers);
    if (this.recording.boxes.length > MANY) this.drawBoxes();
    this.follow();
  }

  /** Of very many lines or boxes, in order of start, those in view, or where they are too narrow to be told apart, whole stretches. */
  #merged(spans) {
    const { duration } = this.recording;
    const { left, width } = this.waveform.ready ? this.waveform.view : { left: 0, width: this.place.clientWidth };
    const px = width / duration, from = (left - width / 4) / px, to = (left + this.place.clientWidth * 1.5) / px;
    const last = new Map(), out = [];
    for (const one of spans) {
      if (one.end < from || one.start > to) continue;
      if ((one.end - one.start) * px > 6) { out.push(one); continue; }
      const before = last.get(one.speaker);
      if (before && (one.start - before.end) * px < 2) before.end = Math.max(before.end, one.end);
      else {
        const merged = { merged: true, speaker: one.speaker, start: one.start, end: one.end };
        last.set(one.speaker, merged);
        out.push(merged);
      }
    }
    return out;
  }

  #viewKey() {
    const { left, width } = this.waveform.ready ? this.waveform.view : { left: 0, width: 0 };
    return `${width} ${Math.round(left / Math.max(1, this.place.clientWidth / 2))}`;
  }

  #drawNames(speakers) {
    const key = JSON.stringify([speakers, this.recording.editable]);
    if (key === this.#namesKey || this.names.querySelector("input")) return; // somebody writes
    this.#namesKey = key;
    const focused = this.names.contains(document.activeElement) && document.activeElement.dataset.label;
    this.names.replaceChildren(...speakers.map((speaker) => this.#name(speaker)));
    if (focused) this.#button(focused)?.focus();
  }

  /** Draw the boxes that came since the last time; of very many those in view. */
  drawBoxes() {
    const { boxes, duration } = this.recording;
    if (!duration) return;
    if (boxes !== this.#boxesOf) this.#boxes.replaceChildren(); // begun anew
    this.#boxesOf = boxes;
    if (boxes.length > MANY) {
      this.#manyKey ??= this.#viewKey();
      const ordered = boxes.toSorted((a, b) => a.start - b.start); // several chunks are listened to at once
      this.#boxes.replaceChildren(...this.#merged(ordered).map((box) => this.#put(h("i"), box)));
    } else for (const box of boxes.slice(this.#boxes.children.length)) this.#boxes.append(this.#put(h("i"), box));
  }

  #put(node, { start, end }) {
    const { duration } = this.recording;
    setVars(node, { at: `${(start / duration) * 100}%`, long: `${((end - start) / duration) * 100}%` });
    return node;
  }

  #button(label) {
    return [...this.names.querySelectorAll("button")].find((node) => node.dataset.label === label);
  }

  /** Take over the waveform's zoom and scroll. */
  follow() {
    const { duration } = this.recording;
    if (this.#manyKey !== null && this.#manyKey !== this.#viewKey()) { this.draw(); return; }
    const { left, width } = this.waveform.ready ? this.waveform.view : { left: 0, width: this.place.clientWidth };
    this.#width = width;
    this.#inner.style.width = `${width}px`;
    this.#inner.style.transform = `translateX(${-left}px)`;
    if (!duration || !width) return;
    const step = TICKS_S.find((s) => (s / duration) * width >= 72) ?? 7200;
    const from = Math.floor(((left / width) * duration) / step), to = ((left + this.place.clientWidth) / width) * duration;
    const ticks = [];
    for (let k = from; k * step <= to && (k * step) / duration < 1 - 36 / width; k += 1) {
      const tick = h("span", {}, clock(k * step, step < 1 ? 1 : 0));
      setVars(tick, { at: `${((k * step) / duration) * 100}%` });
      ticks.push(tick);
    }
    this.#ticks.replaceChildren(...ticks);
  }

  /** Move the playhead and light the blocks of what is heard. */
  mark(time, current) {
    this.#head.style.transform = `translateX(${(time / (this.recording.duration || 1)) * this.#width}px)`;
    markOnly(this.#marked, current, "current", (id) => this.#blocks.get(id));
    this.#marked = current;
  }

  select(id) {
    markOnly([this.#selected], new Set([id]), "selected", (one) => this.#blocks.get(one));
    this.#selected = id;
  }

  /** Edit a speaker's name in its place. */
  rename(label) {
    const button = this.#button(label);
    if (!button || !this.recording.editable) return;
    rename(button, this.recording.name(label), `New name of ${this.recording.name(label)}`, (name) =>
      this.recording.correct({ op: "rename", speaker: label, name }));
  }

  #name({ label, name, gender }) {
    const { recording } = this;
    const can = recording.editable;
    const button = h(
      "button",
      {
        type: "button", class: "name", "data-label": label, draggable: can ? "true" : null, disabled: !can,
        "aria-haspopup": "menu", title: can ? "Rename or merge; drag onto another name to merge" : null,
        onclick: () => menu(button, this.#choices(label)), ondblclick: () => this.rename(label),
        ondragstart: (event) => event.dataTransfer.setData("text/x-speaker", label),
        ondragover: (event) => {
          if (!event.dataTransfer.types.includes("text/x-speaker")) return;
          event.preventDefault();
          button.classList.add("over");
        },
        ondragleave: () => button.classList.remove("over"),
        ondrop: (event) => {
          const from = event.dataTransfer.getData("text/x-speaker");
          event.preventDefault();
          button.classList.remove("over");
          if (from && from !== label) recording.correct({ op: "merge", from, into: label });
        },
      },
      h("i", { class: `dot ${recording.paint(label)}` }), h("span", {}, name),
      gender === "unknown" ? null : h("small", { title: `sounds ${gender}` }, gender),
    );
    return h("li", {}, button);
  }

  #choices(label) {
    const { recording } = this;
    const { name, gender } = recording.speakers.find((one) => one.label === label);
    const others = recording.speakers.filter((other) => other.label !== label);
    return [
      name.length > 12 ? name : null,
      { label: "Rename", icon: "edit", run: () => this.rename(label) },
      "Sounds",
      ...["female", "male", "unknown"].map((one) => ({
        label: one === "unknown" ? "not said" : one, note: one === gender ? "✓" : "", disabled: one === gender,
        run: () => recording.correct({ op: "gender", speaker: label, gender: one }),
      })),
      ...(others.length ? [`${recording.name(label)} is the same person as`] : []),
      ...others.map((other) => ({
        label: other.name, paint: recording.paint(other.label), run: () => recording.correct({ op: "merge", from: label, into: other.label }),
      })),
    ].filter((one) => one !== null);
  }
}

/** Stretches in which two speakers talk; segments in order of start. */
function overlaps(segments) {
  const found = [];
  let until = [];
  for (const one of segments) {
    until = until.filter((other) => other.end > one.start);
    for (const other of until) {
      if (other.speaker !== one.speaker) found.push({ start: one.start, end: Math.min(one.end, other.end) });
    }
    until.push(one);
  }
  return found;
}
