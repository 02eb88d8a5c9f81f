/** One line as fields. What is typed is kept at every key, until the server has it or it is left on purpose. */

import { clock, h, notice, parseClock } from "./dom.js";
import { draftOf, dropDraft, keepDraft } from "./keep.js";

const SHORTEST_S = 0.1;
const sameWords = (text) => text.replace(/\s+/g, " ").trim();

export class Editor {
  #open = true;

  /** @param {{recording, waveform, closed: function(boolean)}} with_ `closed` is told whether a draft is left. */
  constructor(segment, line, { recording, waveform, closed }) {
    Object.assign(this, { id: segment.id, segment, line, recording, closed });
    const draft = draftOf(recording.id, segment.id);
    this.text = h("textarea", { class: "words", rows: "1", "aria-label": "Words", spellcheck: "true" });
    [this.start, this.end] = [["start", "Start"], ["end", "End"]].map(([key, label]) =>
      h("input", { value: draft?.[key] ?? clock(segment[key], 2), "aria-label": label, inputmode: "decimal", size: "7" }));
    this.wrong = h("p", { class: "wrong", role: "alert" });
    this.text.value = draft?.text ?? segment.text;
    if (draft && draft.base.text !== segment.text) this.wrong.textContent = `Somebody changed this line since you typed; it now reads: ${segment.text}`;
    this.handles = waveform.handles(segment.start, segment.end, (from, to) => {
      this.start.value = clock(from, 2);
      this.end.value = clock(to, 2);
      this.#keep();
    });
    for (const input of [this.start, this.end]) {
      input.onchange = () => { if (!this.#fault(...this.times)) this.handles.set(...this.times); };
      input.oninput = () => this.#keep();
    }
    this.form = h(
      "form",
      { class: "edit", onsubmit: (event) => { event.preventDefault(); this.save(); } },
      this.text,
      h("p", { class: "edit-row" }, h("label", {}, "from ", this.start), h("label", {}, "to ", this.end),
        h("button", { type: "button", class: "button small", title: "Cut the line where the cursor is (Ctrl+Enter)", onclick: () => this.split() }, "Split here"),
        h("button", { type: "submit", class: "button primary" }, "Save"), h("button", { type: "button", class: "quiet", onclick: () => this.discard() }, "Cancel")),
      this.wrong,
    );
    this.form.onkeydown = (event) => {
      if (event.key === "Escape") this.discard();
      if (event.key === "Enter" && !event.isComposing && event.target.tagName !== "BUTTON") {
        event.preventDefault();
        if (event.ctrlKey || event.metaKey) this.split();
        else this.save();
      }
      event.stopPropagation();
    };
    line.querySelector(".more").remove();
    line.querySelector(".words").replaceWith(this.form);
    line.classList.add("editing");
    const fit = () => { this.text.style.height = "auto"; this.text.style.height = `${this.text.scrollHeight}px`; };
    this.text.oninput = () => { fit(); this.#keep(); };
    fit();
    this.text.focus();
  }

  get times() { return [parseClock(this.start.value), parseClock(this.end.value)]; }

  get #change() {
    const { segment } = this, [from, to] = this.times, words = sameWords(this.text.value);
    return {
      ...(words !== segment.text && { text: words }),
      ...(this.start.value !== clock(segment.start, 2) && { start: from }),
      ...(this.end.value !== clock(segment.end, 2) && { end: to }),
    };
  }

  get changed() { return this.#open && Object.keys(this.#change).length > 0; }

  #keep() {
    const { segment } = this;
    if (!this.changed) dropDraft(this.recording.id, this.id);
    else keepDraft(this.recording.id, this.id, { text: this.text.value, start: this.start.value, end: this.end.value, base: { text: segment.text, start: segment.start, end: segment.end } });
  }

  /** Send it; the words stay kept until the server has them. */
  async save() {
    const fault = this.#fault(...this.times);
    this.wrong.textContent = fault;
    if (fault) return false;
    const change = this.#change;
    return this.#send(Object.keys(change).length ? { op: "edit", segment: this.id, ...change } : null);
  }

  /** Cut the line where the cursor is; what else was typed is saved before. */
  async split() {
    const words = sameWords(this.text.value), at = sameWords(this.text.value.slice(0, this.text.selectionStart)).length;
    if (at < 1 || at >= words.length) {
      this.wrong.textContent = "Put the cursor between the words where the line is to be cut.";
      return;
    }
    const fault = this.#fault(...this.times), change = this.#change;
    this.wrong.textContent = fault;
    if (fault) return;
    if (Object.keys(change).length && !await this.recording.correct({ op: "edit", segment: this.id, ...change })) return;
    await this.#send({ op: "split", segment: this.id, at });
  }

  async #send(op) {
    this.#close(op !== null);
    const taken = op === null || await this.recording.correct(op);
    if (taken) dropDraft(this.recording.id, this.id);
    this.closed(!taken);
    return taken;
  }

  /** Another line is opened: what is right is saved, the rest stays as a draft. */
  leave() {
    if (!this.#open) return;
    if (!this.changed) this.#done(false);
    else if (this.#fault(...this.times)) this.#done(true);
    else this.save();
  }

  /** The line is gone, by somebody else's hand: its words stay within reach. */
  orphan() {
    const text = sameWords(this.text.value);
    if (!this.#open) return;
    this.#done(false);
    if (text !== this.segment.text) {
      notice(`Somebody deleted the line you were writing: “${text}”`, { bad: true, lasting: true, action: ["Add it again", () => this.recording.correct({ op: "add", speaker: this.segment.speaker, start: this.segment.start, end: this.segment.end, text })] });
    }
  }

  /** Leave without saving, on purpose; it can be taken back for a moment. */
  discard() {
    const typed = this.changed && draftOf(this.recording.id, this.id);
    dropDraft(this.recording.id, this.id);
    this.#done(false);
    if (typed) {
      notice("Not saved.", { action: ["Bring it back", () => {
        keepDraft(this.recording.id, this.id, typed);
        this.recording.dispatchEvent(new CustomEvent("edit", { detail: this.id }));
      }] });
    }
  }

  #done(kept) {
    this.#close();
    this.closed(kept);
  }

  #close() {
    this.#open = false;
    this.handles.remove();
  }

  /** What is wrong with these times, or nothing. */
  #fault(start, end) {
    const { duration } = this.recording;
    if (start === null || end === null) return "Write times as 1:02.5, minutes and seconds.";
    if (end > duration + 0.005) return `The recording ends at ${clock(duration, 2)}.`;
    return end - start < SHORTEST_S ? "A line starts at least 0.1 s before it ends." : "";
  }
}
