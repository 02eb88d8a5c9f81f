/** The lines: heard, corrected, marked where they are doubtful. */

import { clock, h, icon, markOnly, menu, parseClock } from "./dom.js";

const DOUBTFUL = 0.6; // a mean token probability below which a part of a line is marked
const SHORTEST_S = 0.1;

export class Transcript {
  #lines = new Map(); // id to {node, key}
  #gaps = [];
  #editing = null;
  #marked = new Set();
  selected = null;

  /** @param {{recording, waveform, hear, select, trace, renameSpeaker}} with_ what lines can do. */
  constructor(list, with_) {
    Object.assign(this, { list, ...with_ });
    list.replaceChildren();
    list.onkeydown = (event) => this.#onKey(event);
  }

  draw() {
    const { recording } = this;
    const wanted = new Set();
    const order = recording.segments.map((segment) => {
      wanted.add(segment.id);
      const key = JSON.stringify([segment, recording.name(segment.speaker), recording.editable]);
      const known = this.#lines.get(segment.id);
      if (known?.key === key || this.#editing?.id === segment.id) return known.node;
      const node = this.#line(segment);
      if (known?.node.contains(document.activeElement)) queueMicrotask(() => node.focus({ preventScroll: true }));
      known?.node.remove();
      this.#lines.set(segment.id, { node, key });
      return node;
    });
    for (const [id, { node }] of this.#lines) {
      if (wanted.has(id)) continue;
      node.remove();
      this.#lines.delete(id);
    }
    for (const node of this.#gaps) node.remove();
    this.#gaps = (recording.document?.missing ?? []).map((gap) => {
      const node = this.#gap(gap);
      const next = recording.segments.findIndex((segment) => segment.start >= gap.start);
      order.splice(next < 0 ? order.length : next + order.filter((one) => one.classList.contains("gap")).length, 0, node);
      return node;
    });
    order.forEach((node, k) => {
      if (this.list.children[k] !== node) this.list.insertBefore(node, this.list.children[k] ?? null);
    });
    this.#rove();
  }

  /** Highlight what is heard now, and bring it into view. */
  mark(current) {
    markOnly(this.#marked, current, "current", (id) => {
      const node = this.#lines.get(id)?.node;
      if (current.has(id) && !node?.classList.contains("current")) node?.scrollIntoView({ block: "nearest", behavior: "smooth" });
      return node;
    });
    this.#marked = current;
  }

  /** Whether the last line is in view, so that one after it should be too. */
  get atEnd() {
    return (this.list.lastChild?.getBoundingClientRect().top ?? 0) < innerHeight;
  }

  toEnd() {
    this.list.lastChild?.scrollIntoView({ block: "nearest", behavior: "smooth" });
  }

  focus(id) {
    const node = this.#lines.get(id)?.node;
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

  /** One line can be reached by Tab: the selected one, else the first. */
  #rove() {
    const one = this.#lines.has(this.selected) ? this.selected : this.recording.segments[0]?.id;
    for (const node of this.list.querySelectorAll(".line[tabindex='0']")) node.tabIndex = -1;
    if (one !== undefined) this.#lines.get(one).node.tabIndex = 0;
  }

  chosen(id) {
    markOnly([this.selected], new Set([id]), "selected", (one) => this.#lines.get(one)?.node);
    this.selected = id;
    this.#rove();
  }

  #line(segment) {
    const { recording } = this;
    const name = recording.name(segment.speaker);
    const unsure = doubts(segment.confidence);
    const who = h(
      "button",
      {
        type: "button", class: unsure.speaker ? "who unsure" : "who", disabled: !recording.editable, "aria-haspopup": "menu",
        "aria-label": `${name}${unsure.speaker ? ", perhaps" : ""}. Somebody else?`, title: unsure.speaker ?? null,
        onclick: () => menu(who, this.#speakers(segment)),
      },
      h("i", { class: `dot c${recording.colour(segment.speaker)}` }), h("span", {}, name),
    );
    const when = h(
      "button",
      { type: "button", class: "when", "aria-label": `Hear ${clock(segment.start, 1)} to ${clock(segment.end, 1)}`, title: unsure.times ?? null, onclick: () => this.hear(segment) },
      icon("play"), clock(segment.start, 1),
    );
    const more = h("button", { type: "button", class: "icon more", "aria-label": "More about this line", "aria-haspopup": "menu", onclick: () => menu(more, this.#actions(segment)) }, icon("more"));
    const words = h("p", { class: unsure.words ? "words unsure" : "words", title: unsure.words ?? null }, h("span", {}, segment.text || "(no words)"));
    if (segment.overlap) words.append("\u00a0\u00a0", h("small", { class: "tag" }, "overlap"));
    if (unsure.words) words.append(h("span", { class: "sr" }, ` (${unsure.words})`));
    const line = h("li", { class: `line c${recording.colour(segment.speaker)}`, tabindex: "-1", "data-id": segment.id, onfocusin: () => this.select(segment) }, when, who, words, more);
    words.onclick = () => { if (getSelection().isCollapsed) { line.focus({ preventScroll: true }); this.hear(segment); } };
    words.ondblclick = () => this.edit(segment.id);
    if (segment.id === this.selected) line.classList.add("selected");
    return line;
  }

  #gap({ start, end, reason }) {
    const { recording } = this;
    const heard = recording.document.chunks.find((chunk) => chunk.start <= start && start < chunk.end);
    const again = heard && recording.editable
      ? h("button", { type: "button", onclick: () => recording.correct({ op: "listen", chunk: heard.chunk }) }, "Listen again")
      : null;
    return h("li", { class: "gap" }, h("span", { class: "when" }, clock(start, 1)), h("p", {}, `Not transcribed until ${clock(end, 1)}: ${reason}`, again));
  }

  #actions(segment) {
    const { recording } = this;
    const off = !recording.editable;
    return [
      { label: "Hear it", icon: "play", note: "L", run: () => this.hear(segment) },
      { label: "How it listened", icon: "ear", note: "T", run: () => this.trace(segment) },
      null,
      { label: "Edit", icon: "edit", note: "Enter", disabled: off, run: () => this.edit(segment.id) },
      { label: "Somebody else said it", icon: "person", disabled: off, run: () => menu(this.#lines.get(segment.id).node.querySelector(".who"), this.#speakers(segment)) },
      { label: "Listen again to this stretch", icon: "again", disabled: off, run: () => recording.correct({ op: "listen", chunk: segment.chunk }) },
      { label: "Delete", icon: "trash", note: "Del", disabled: off, bad: true, run: () => this.remove(segment.id) },
    ];
  }

  #speakers(segment) {
    const { recording } = this;
    const move = (speaker) => recording.correct({ op: "move", segment: segment.id, speaker });
    return [
      "Who says this line?",
      ...recording.speakers.filter((one) => one.label !== segment.speaker).map((one) => ({ label: one.name, colour: recording.colour(one.label), run: () => move(one.label) })),
      { label: "A new speaker", icon: "plus", run: () => move(recording.newLabel) },
      null,
      { label: `Rename ${recording.name(segment.speaker)} everywhere`, icon: "edit", run: () => this.renameSpeaker(segment.speaker) },
    ];
  }

  remove(id) {
    this.step(1);
    if (this.selected === id) this.step(-1);
    this.recording.correct({ op: "delete", segment: id });
  }

  /** Turn a line into fields for its words and times. */
  edit(id) {
    const { recording } = this;
    const segment = recording.segments.find((one) => one.id === id);
    const line = this.#lines.get(id)?.node;
    if (!segment || !line || !recording.editable || this.#editing?.id === id) return;
    this.#editing?.end(true);
    const text = h("textarea", { class: "words", rows: "1", "aria-label": "Words", spellcheck: "true" });
    const [start, end] = [["start", "Start"], ["end", "End"]].map(([key, label]) =>
      h("input", { value: clock(segment[key], 2), "aria-label": label, inputmode: "decimal", size: "7" }));
    const wrong = h("p", { class: "wrong", role: "alert" });
    text.value = segment.text;
    const times = () => [parseClock(start.value), parseClock(end.value)];
    const handles = this.waveform.handles(segment.start, segment.end, (from, to) => {
      start.value = clock(from, 2);
      end.value = clock(to, 2);
    });
    for (const input of [start, end]) input.onchange = () => { if (!this.#wrong(...times())) handles.set(...times()); };
    const close = () => {
      handles.remove();
      this.#editing = null;
      form.replaceWith(...line.kept);
      line.classList.remove("editing");
      line.focus({ preventScroll: true });
    };
    const save = async () => {
      const [from, to] = times();
      wrong.textContent = this.#wrong(from, to);
      if (wrong.textContent) return;
      const words = text.value.replace(/\s+/g, " ").trim();
      const change = {
        ...(words !== segment.text && { text: words }),
        ...(start.value !== clock(segment.start, 2) && { start: from }),
        ...(end.value !== clock(segment.end, 2) && { end: to }),
      };
      close();
      if (Object.keys(change).length) await recording.correct({ op: "edit", segment: id, ...change });
    };
    const form = h(
      "form",
      { class: "edit", onsubmit: (event) => { event.preventDefault(); save(); } },
      text,
      h("p", { class: "edit-row" }, h("label", {}, "from ", start), h("label", {}, "to ", end),
        h("button", { type: "submit", class: "button primary" }, "Save"), h("button", { type: "button", class: "quiet", onclick: close }, "Cancel")),
      wrong,
    );
    form.onkeydown = (event) => {
      if (event.key === "Escape") close();
      if (event.key === "Enter" && !event.isComposing && event.target.tagName !== "BUTTON") { event.preventDefault(); save(); }
      event.stopPropagation();
    };
    this.#editing = { id, end: close };
    line.kept = [line.querySelector(".words"), line.querySelector(".more")];
    line.kept[1].remove();
    line.kept[0].replaceWith(form);
    line.classList.add("editing");
    const fit = () => { text.style.height = "auto"; text.style.height = `${text.scrollHeight}px`; };
    text.oninput = fit;
    fit();
    text.focus();
  }

  /** What is wrong with these times, or nothing. */
  #wrong(start, end) {
    const { duration } = this.recording;
    if (start === null || end === null) return "Write times as 1:02.5, minutes and seconds.";
    if (end > duration + 0.005) return `The recording ends at ${clock(duration, 2)}.`;
    return end - start < SHORTEST_S ? "A line starts at least 0.1 s before it ends." : "";
  }

  #onKey(event) {
    const id = event.target.classList.contains("line") && event.target.dataset.id;
    const segment = id && this.recording.segments.find((one) => one.id === id);
    const act = segment && !event.ctrlKey && !event.metaKey && !event.altKey && {
      Enter: () => this.edit(id), l: () => this.hear(segment), t: () => this.trace(segment),
      Delete: () => { if (this.recording.editable) this.remove(id); },
    }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }
}

/** Which parts of a line are doubtful, in words. */
function doubts(confidence) {
  const say = (part, of) => {
    const value = confidence?.[part] ?? 1;
    return value < DOUBTFUL ? `not sure of the ${of}, ${Math.round(value * 100)} %` : null;
  };
  return { words: say("words", "words"), speaker: say("speaker", "speaker"), times: say("times", "times") };
}
