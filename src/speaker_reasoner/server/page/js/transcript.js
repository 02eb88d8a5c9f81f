/** The lines: heard, corrected, marked where they are doubtful. Of a long list, what is near the view. */

import { clock, h, icon, markOnly, menu } from "./dom.js";
import { draftOf, draftsOf, dropDraft } from "./keep.js";
import { Editor } from "./editor.js";

const DOUBTFUL = 0.6; // a mean token probability below which a part of a line is marked
const ALL = 300; // so many lines are all drawn
const AROUND = 60; // of more, those in view and so many before and after
const LINE_PX = 44;

export class Transcript {
  #drawn = new Map(); // id to {node, key}
  #items = []; // {id, segment} or {id, gap}, in order
  #heights = new Map();
  #above = h("li", { class: "space", role: "presentation" });
  #below = h("li", { class: "space", role: "presentation" });
  #editor = null;
  #marked = new Set();
  #word = null;
  #drafts = new Set();
  #asked = false;
  #onScroll = () => {
    if (this.#asked || this.#items.length <= ALL) return;
    this.#asked = true;
    requestAnimationFrame(() => { this.#asked = false; this.#window(); });
  };
  selected = null;

  /** @param {{recording, waveform, hear, select, trace, renameSpeaker, listenAgain}} with_ what lines can do. */
  constructor(list, with_) {
    Object.assign(this, { list, ...with_ });
    this.#drafts = new Set(draftsOf(this.recording.id));
    list.replaceChildren();
    list.onkeydown = (event) => this.#onKey(event);
    addEventListener("scroll", this.#onScroll, { passive: true });
  }

  close() {
    removeEventListener("scroll", this.#onScroll);
    this.#editor?.leave();
  }

  /** Whether words are typed that were not saved. */
  get unsaved() { return this.#editor?.changed ?? false; }

  get floor() { return this.recording.document?.confidence_floor || DOUBTFUL; }

  draw() {
    const { recording } = this;
    const segments = recording.segments.map((segment) => ({ id: segment.id, segment }));
    const gaps = (recording.document?.missing ?? []).map((gap) => ({ id: `gap-${gap.start}`, gap }));
    this.#items = [...segments, ...gaps].sort((a, b) => (a.segment ?? a.gap).start - (b.segment ?? b.gap).start || (a.gap ? 1 : 0) - (b.gap ? 1 : 0));
    if (this.#editor && !segments.some((one) => one.id === this.#editor.id)) this.#editor.orphan();
    this.#window();
  }

  /** Draw what is in and near the view. */
  #window() {
    const items = this.#items;
    let from = 0, to = items.length;
    if (to > ALL) {
      const top = -this.list.getBoundingClientRect().top;
      let y = 0;
      for (from = 0; from < items.length && y < top; from += 1) y += this.#height(items[from]);
      for (to = from; to < items.length && y < top + innerHeight; to += 1) y += this.#height(items[to]);
      [from, to] = [Math.max(0, from - AROUND), Math.min(items.length, to + AROUND)];
    }
    const wanted = items.slice(from, to);
    for (const id of [this.#editor?.id, this.#focused]) { // neither what is typed nor the focus is lost
      const item = id && !wanted.some((one) => one.id === id) && items.find((one) => one.id === id);
      if (item) wanted[items.indexOf(item) < from ? "unshift" : "push"](item);
    }
    const ids = new Set(wanted.map((one) => one.id));
    for (const [id, { node }] of this.#drawn) {
      if (ids.has(id)) continue;
      if (node.offsetHeight) this.#heights.set(id, node.offsetHeight);
      node.remove();
      this.#drawn.delete(id);
    }
    const sum = (some) => some.reduce((px, item) => px + this.#height(item), 0);
    this.#above.style.height = `${sum(items.slice(0, from))}px`;
    this.#below.style.height = `${sum(items.slice(to))}px`;
    const order = wanted.map((item) => this.#node(item));
    if (to - from < items.length) { order.unshift(this.#above); order.push(this.#below); }
    else { this.#above.remove(); this.#below.remove(); }
    order.forEach((node, k) => {
      if (this.list.children[k] !== node) this.list.insertBefore(node, this.list.children[k] ?? null);
    });
    const places = new Map(items.length > ALL ? items.map((item, k) => [item.id, k]) : []);
    for (const [id, k] of places) {
      const node = this.#drawn.get(id)?.node;
      node?.setAttribute("aria-setsize", String(items.length));
      node?.setAttribute("aria-posinset", String(k + 1));
    }
    this.#rove();
    this.#mark();
  }

  #height(item) { return this.#heights.get(item.id) ?? LINE_PX; }

  get #focused() { return document.activeElement?.closest?.("#lines > .line")?.dataset.id; }

  #node(item) {
    const { recording } = this;
    const shown = item.segment ?? item.gap;
    const key = JSON.stringify([shown, item.segment && recording.name(shown.speaker), item.segment && recording.colour(shown.speaker), recording.editable, this.#drafts.has(item.id)]);
    const known = this.#drawn.get(item.id);
    if (known && (known.key === key || this.#editor?.id === item.id)) return known.node;
    const node = item.segment ? this.#line(item.segment) : this.#gap(item.gap);
    if (known?.node.contains(document.activeElement)) queueMicrotask(() => node.focus({ preventScroll: true }));
    known?.node.remove();
    this.#drawn.set(item.id, { node, key });
    return node;
  }

  /** Highlight what is heard now, and the word; bring it into view where `follow` says so. */
  mark(current, time, follow) {
    const fresh = [...current].find((id) => !this.#marked.has(id));
    this.#marked = current;
    if (fresh !== undefined && follow) this.show(fresh, "nearest");
    this.#mark();
    let word = null;
    for (const id of current) {
      for (const node of this.#drawn.get(id)?.node.querySelectorAll(".word") ?? []) {
        if (Number(node.dataset.start) <= time && time < Number(node.dataset.end)) word = node;
      }
    }
    if (word === this.#word) return;
    this.#word?.classList.remove("now");
    word?.classList.add("now");
    this.#word = word;
  }

  #mark() {
    for (const [id, { node }] of this.#drawn) node.classList.toggle("current", this.#marked.has(id));
  }

  /** Whether the last line is in view, so that one after it should be too. */
  get atEnd() {
    return (this.list.lastChild?.getBoundingClientRect().top ?? 0) < innerHeight;
  }

  toEnd() {
    this.list.lastChild?.scrollIntoView({ block: "nearest", behavior: "smooth" });
  }

  /** Bring a line into view, drawing it if it is far. */
  show(id, block = "nearest") {
    const at = this.#items.findIndex((one) => one.id === id);
    if (at < 0) return null;
    if (!this.#drawn.has(id)) {
      const y = this.#items.slice(0, at).reduce((px, item) => px + this.#height(item), 0);
      scrollTo({ top: this.list.getBoundingClientRect().top + scrollY + y - innerHeight / 2, behavior: "instant" });
      this.#window();
    }
    const node = this.#drawn.get(id)?.node;
    node?.scrollIntoView({ block, behavior: this.#items.length > ALL ? "instant" : "smooth" });
    return node;
  }

  focus(id) {
    const node = this.show(id);
    node?.focus({ preventScroll: true });
    node?.scrollIntoView({ block: "nearest" });
  }

  /** Focus the next or previous line. */
  step(by) {
    const all = this.recording.segments;
    const at = all.findIndex((segment) => segment.id === this.selected);
    const next = all[at < 0 ? 0 : Math.min(Math.max(at + by, 0), all.length - 1)];
    if (next) this.focus(next.id);
  }

  /** One line can be reached by Tab: the selected one, else the first; within it keys do what its buttons do. */
  #rove() {
    const one = this.#drawn.has(this.selected) ? this.selected : this.#items.find((item) => item.segment && this.#drawn.has(item.id))?.id;
    for (const node of this.list.querySelectorAll(".line[tabindex='0']")) node.tabIndex = -1;
    if (one !== undefined) this.#drawn.get(one).node.tabIndex = 0;
  }

  chosen(id) {
    markOnly([this.selected], new Set([id]), "selected", (one) => this.#drawn.get(one)?.node);
    this.selected = id;
    this.#rove();
  }

  #line(segment) {
    const { recording } = this;
    const name = recording.name(segment.speaker);
    const unsure = doubts(segment.confidence, this.floor);
    const who = h(
      "button",
      {
        type: "button", class: unsure.speaker ? "who unsure" : "who", disabled: !recording.editable, "aria-haspopup": "menu", tabindex: "-1",
        "aria-label": `${name}${unsure.speaker ? ", perhaps" : ""}. Somebody else?`, title: unsure.speaker ?? name,
        onclick: () => menu(who, this.#speakers(segment)),
      },
      h("i", { class: `dot ${recording.paint(segment.speaker)}` }), h("span", {}, name),
    );
    const when = h(
      "button",
      { type: "button", class: "when", tabindex: "-1", "aria-label": `Hear ${clock(segment.start, 1)} to ${clock(segment.end, 1)}`, title: unsure.times ?? null, onclick: () => this.hear(segment) },
      icon("play"), clock(segment.start, 1),
    );
    const more = h("button", { type: "button", class: "icon more", tabindex: "-1", "aria-label": `More about this line of ${name}`, "aria-haspopup": "menu", onclick: () => menu(more, this.#actions(segment)) }, icon("more"));
    const words = h("p", { class: unsure.words ? "words unsure" : "words", title: unsure.words ?? null }, h("span", {}, ...this.#words(segment)));
    if (segment.overlap) words.append("\u00a0\u00a0", h("small", { class: "tag" }, "overlap"));
    if (unsure.words) words.append(h("span", { class: "sr" }, ` (${unsure.words})`));
    const line = h("li", { class: `line ${recording.paint(segment.speaker)}`, tabindex: "-1", "data-id": segment.id, onfocusin: () => this.select(segment) }, when, who, words, more);
    words.onclick = ({ target }) => {
      if (!getSelection().isCollapsed) return;
      line.focus({ preventScroll: true });
      const start = target.classList.contains("word") ? Number(target.dataset.start) : segment.start;
      this.hear({ ...segment, start });
    };
    words.ondblclick = () => this.edit(segment.id);
    if (segment.id === this.selected) line.classList.add("selected");
    if (this.#drafts.has(segment.id)) line.append(this.#draft(segment));
    return line;
  }

  /** The text, with those of its words that have times as nodes of their own. */
  #words(segment) {
    if (!segment.words?.length) return [segment.text || "(no words)"];
    const nodes = [];
    let at = 0;
    for (const { word, start, end } of segment.words) {
      const found = segment.text.indexOf(word.trim(), at);
      if (found < 0) return [segment.text];
      if (found > at) nodes.push(segment.text.slice(at, found));
      at = found + word.trim().length;
      nodes.push(h("span", { class: "word", "data-start": String(start), "data-end": String(end) }, segment.text.slice(found, at)));
    }
    return [...nodes, segment.text.slice(at)];
  }

  /** That words were typed here and not saved. */
  #draft(segment) {
    const draft = draftOf(this.recording.id, segment.id);
    const drop = () => { dropDraft(this.recording.id, segment.id); this.#forgetDraft(segment.id); };
    return h("p", { class: "draft" }, "You typed and did not save: ", h("q", {}, draft?.text ?? ""), " ",
      h("button", { type: "button", disabled: !this.recording.editable, onclick: () => this.edit(segment.id) }, "Go on"), " ",
      h("button", { type: "button", onclick: drop }, "Leave it"));
  }

  #forgetDraft(id) {
    this.#drafts.delete(id);
    this.draw();
  }

  #gap({ start, end, reason }) {
    const { recording } = this;
    const heard = recording.document.chunks.find((chunk) => chunk.start <= start && start < chunk.end);
    const can = recording.editable;
    const again = heard && can ? h("button", { type: "button", onclick: () => this.listenAgain(heard.chunk) }, "Listen again") : null;
    const add = can ? h("button", { type: "button", onclick: () => this.add(start, end) }, "Write it down") : null;
    return h("li", { class: "gap" }, h("span", { class: "when" }, clock(start, 1)), h("p", {}, `Not transcribed until ${clock(end, 1)}: ${reason}`, again, add));
  }

  #actions(segment) {
    const { recording } = this;
    const off = !recording.editable;
    const all = recording.segments, next = all[all.findIndex((one) => one.id === segment.id) + 1];
    return [
      { label: "Hear it", icon: "play", note: "L", run: () => this.hear(segment) },
      { label: "How it listened", icon: "ear", note: "T", run: () => this.trace(segment) },
      null,
      { label: "Edit or split", icon: "edit", note: "Enter", disabled: off, run: () => this.edit(segment.id) },
      { label: "Join with the next line", icon: "merge", note: "G", disabled: off || !next, run: () => this.join(segment) },
      { label: "Add a line after it", icon: "plus", note: "A", disabled: off, run: () => this.addAfter(segment) },
      { label: "Somebody else said it", icon: "person", note: "S, 1–9", disabled: off, run: () => this.who(segment) },
      { label: "Listen again to this stretch", icon: "again", disabled: off, run: () => this.listenAgain(segment.chunk) },
      { label: "Delete", icon: "trash", note: "Del", disabled: off, bad: true, run: () => this.remove(segment.id) },
    ];
  }

  #speakers(segment) {
    const { recording } = this;
    const move = (speaker) => recording.correct({ op: "move", segment: segment.id, speaker });
    const numbers = new Map(recording.speakers.map((one, k) => [one.label, k < 9 ? String(k + 1) : ""]));
    return [
      "Who says this line?",
      ...recording.speakers.filter((one) => one.label !== segment.speaker).map((one) => ({ label: one.name, note: numbers.get(one.label), paint: recording.paint(one.label), run: () => move(one.label) })),
      { label: "A new speaker", icon: "plus", run: () => move(recording.newLabel) },
      null,
      { label: `Rename ${recording.name(segment.speaker)} everywhere`, icon: "edit", run: () => this.renameSpeaker(segment.speaker) },
    ];
  }

  who(segment) { menu(this.#drawn.get(segment.id).node.querySelector(".who"), this.#speakers(segment)); }

  /** Give a line to the n-th speaker, from 0. */
  assign(segment, n) {
    const speaker = this.recording.speakers[n];
    if (speaker && speaker.label !== segment.speaker) this.recording.correct({ op: "move", segment: segment.id, speaker: speaker.label });
  }

  join(segment) {
    const all = this.recording.segments, next = all[all.findIndex((one) => one.id === segment.id) + 1];
    if (next) this.recording.correct({ op: "join", segment: segment.id, other: next.id });
  }

  addAfter(segment) {
    const next = this.recording.segments.find((one) => one.start >= segment.end);
    const end = Math.min(next?.start ?? Infinity, segment.end + 2, this.recording.duration);
    this.add(segment.end, end - segment.end < 0.2 ? Math.min(segment.end + 1, this.recording.duration) : end, segment);
  }

  /** A new line, empty, and open to be written. */
  async add(start, end, beside = null) {
    const { recording } = this;
    const before = new Set(recording.segments.map((one) => one.id));
    const near = beside ?? recording.segments.findLast((one) => one.start <= start) ?? recording.segments[0];
    const speaker = near?.speaker ?? recording.newLabel;
    const from = Math.min(start, recording.duration - 0.1);
    if (!await recording.correct({ op: "add", speaker, start: Math.max(0, from), end: Math.max(end, from + 0.1), text: "" })) return;
    const made = recording.segments.find((one) => !before.has(one.id));
    if (!made) return;
    this.draw();
    this.focus(made.id);
    this.edit(made.id);
  }

  remove(id) {
    this.step(1);
    if (this.selected === id) this.step(-1);
    this.recording.correct({ op: "delete", segment: id });
  }

  /** Turn a line into fields for its words and times, with what was typed before and not saved. */
  edit(id) {
    const { recording } = this;
    const segment = recording.segments.find((one) => one.id === id);
    if (!segment || !recording.editable || this.#editor?.id === id) return;
    this.#editor?.leave();
    const line = this.show(id);
    if (!line) return;
    line.querySelector(".draft")?.remove();
    const editor = this.#editor = new Editor(segment, line, {
      recording, waveform: this.waveform,
      closed: (kept) => {
        const mine = this.#editor === editor;
        if (mine) this.#editor = null;
        if (kept) this.#drafts.add(id);
        else this.#drafts.delete(id);
        this.#drawn.delete(id);
        line.remove();
        this.draw();
        if (mine) this.#drawn.get(id)?.node.focus({ preventScroll: true });
      },
    });
  }

  #onKey(event) {
    const id = event.target.classList.contains("line") && event.target.dataset.id;
    const segment = id && this.recording.segments.find((one) => one.id === id);
    if (!segment || event.ctrlKey || event.metaKey || event.altKey) return;
    const can = (act) => () => { if (this.recording.editable) act(); };
    const act = /^[1-9]$/.test(event.key) ? can(() => this.assign(segment, Number(event.key) - 1)) : {
      Enter: () => this.edit(id), l: () => this.hear(segment), t: () => this.trace(segment),
      s: can(() => this.who(segment)), m: () => event.target.querySelector(".more")?.click(),
      g: can(() => this.join(segment)), a: can(() => this.addAfter(segment)), Delete: can(() => this.remove(id)),
    }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }
}

/** Which parts of a line are doubtful, in words. */
function doubts(confidence, floor) {
  const say = (part, of) => {
    const value = confidence?.[part] ?? 1;
    return value < floor ? `not sure of the ${of}, ${Math.round(value * 100)} %` : null;
  };
  return { words: say("words", "words"), speaker: say("speaker", "speaker"), times: say("times", "times") };
}
