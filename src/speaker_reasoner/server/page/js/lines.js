/** The lines on the page while one speaks: by pieces of what was said, each with final lines and guesses at what follows. */

import { $, h } from "./dom.js";

export function clear() {
  $("live").hidden = true;
  $("live").querySelector("ol").replaceChildren();
}

const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ".split("");
const alphabet = [...letters, ...letters.flatMap((first) => letters.map((second) => first + second))];

export class Lines {
  constructor() {
    clear();
    this.list = $("live").querySelector("ol");
    this.pieces = new Map(); // by id: its node, its final lines, its guesses, whether it is complete
    this.letters = []; // in order of appearance, which gives the colours
    this.shown = null; // letters by those of the session under way; the same in the first
    this.say("");
  }

  /**
   * Another session goes on where the last piece was complete; what was shown of others is said again.
   * @param {Iterable<string>} known letters of speakers whom it knows by their voices; it gives others their own.
   */
  anew(known) {
    for (const [id, { node, complete }] of this.pieces) {
      if (complete) continue;
      node.remove();
      this.pieces.delete(id);
    }
    this.shown = new Map([...known].map((letter) => [letter, letter]));
  }

  /** A speaker's letter over all sessions. */
  letter(speaker) {
    if (!this.shown || !/^[A-Z]{1,2}$/.test(speaker)) return speaker;
    if (!this.shown.has(speaker)) {
      const taken = [...this.letters, ...this.shown.values()];
      this.shown.set(speaker, alphabet.find((letter) => !taken.includes(letter)) ?? speaker);
    }
    return this.shown.get(speaker);
  }

  say(text) {
    $("live").hidden = !text && !this.pieces.size;
    $("live").querySelector("p").textContent = text;
  }

  take(what, event) {
    for (const line of [event, ...(event.segments ?? []), ...(event.relabelled ?? [])]) {
      if (line.speaker) line.speaker = this.letter(line.speaker);
    }
    const piece = this.piece(event.item_id);
    if (what === "delta" && event.provisional) piece.guesses = event.segments;
    else if (what === "segment") {
      piece.lines.push(event);
      piece.guesses = [];
      $("spoken").textContent = `${event.speaker}: ${event.text}`;
    } else if (what === "completed") {
      piece.lines = event.segments;
      piece.guesses = [];
      piece.complete = true;
      for (const { item_id, id, speaker } of event.relabelled) {
        const other = this.piece(item_id);
        for (const line of other.lines) if (line.id === id) line.speaker = speaker;
        this.draw(other);
      }
    } else if (what === "failed") {
      piece.guesses = [];
      piece.complete = true;
    }
    this.draw(piece);
  }

  piece(id) {
    if (!this.pieces.has(id)) {
      const piece = { node: h("li"), lines: [], guesses: [], complete: false };
      this.pieces.set(id, piece);
      this.list.append(piece.node);
    }
    return this.pieces.get(id);
  }

  draw({ node, lines, guesses }) {
    const follows = this.list.scrollHeight - this.list.scrollTop - this.list.clientHeight < 40;
    node.replaceChildren(
      ...lines.map(({ speaker, text }) => h("p", { class: `c${this.colour(speaker)}` }, h("span", { class: "live-who" }, h("i", { class: "dot", "aria-hidden": "true" }), `Speaker ${speaker}`), h("span", { class: "words" }, text))),
      ...guesses.map(({ text }) => h("p", { class: "guess" }, h("span", { class: "live-who" }, "not sure yet"), h("span", { class: "words" }, text))),
    );
    if (lines.length || guesses.length) this.say("");
    if (follows) this.list.scrollTop = this.list.scrollHeight;
  }

  colour(letter) {
    if (!this.letters.includes(letter)) this.letters.push(letter);
    return this.letters.indexOf(letter) % 8;
  }

  /** No more lines come: where there is none, take the hint away. */
  settle() {
    if (!this.pieces.size) this.say("");
  }
}
