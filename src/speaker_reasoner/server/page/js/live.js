/**
 * Lines while one speaks, over a socket. They are only shown: the recording that the browser keeps is what is sent
 * and transcribed in the end, whatever becomes of the socket.
 */

import { key } from "./api.js";
import { $, h } from "./dom.js";

const RATE_HZ = 24_000;
const PAUSE_MS = 900; // ends a piece: longer pieces have more of each voice (assumed)
const MOST_WAITING = 2 ** 20; // bytes: about 16 s that the network did not take
const LINE = "conversation.item.input_audio_transcription.";
const FALLBACK = "Lines cannot be shown just now. The recording goes on, and is transcribed when you stop.";

/**
 * Show what is said on a microphone's stream.
 * @param {MediaStream} stream
 * @param {string} speakers how many people speak, such as "2-5"; may be empty.
 * @returns {{stop: function()}} to end it; what is shown stays until `clear`.
 */
export function showLive(stream, speakers) {
  const lines = new Lines();
  let socket = null, context = null, over = false;
  const stop = () => {
    over = true;
    socket?.close();
    context?.close().catch(() => {});
    lines.settle();
  };
  const giveUp = () => {
    if (over) return;
    stop();
    lines.say(FALLBACK);
  };
  const send = (type, body) => socket.send(JSON.stringify({ type, ...body }));
  try {
    const carried = key() === null ? [] : [`openai-insecure-api-key.${key()}`];
    socket = new WebSocket(address(), ["realtime", ...carried]);
  } catch { // a key that no socket can carry
    giveUp();
    return { stop, clear };
  }
  socket.onerror = socket.onclose = giveUp;
  socket.onmessage = ({ data }) => {
    const event = JSON.parse(data);
    if (event.type === "error") giveUp();
    else if (event.type.startsWith(LINE)) lines.take(event.type.slice(LINE.length), event);
  };
  socket.onopen = async () => {
    const turns = { type: "server_vad", silence_duration_ms: PAUSE_MS };
    send("session.update", { session: { type: "transcription", audio: { input: { turn_detection: turns } }, ...(speakers ? { speakers } : {}) } });
    try {
      context = new AudioContext({ sampleRate: RATE_HZ });
      await context.audioWorklet.addModule(new URL("pcm.js", import.meta.url));
      const worklet = new AudioWorkletNode(context, "pcm", { numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit" });
      worklet.port.onmessage = ({ data }) => {
        if (over) return;
        if (socket.bufferedAmount > MOST_WAITING) giveUp();
        else send("input_audio_buffer.append", { audio: base64(data) });
      };
      context.createMediaStreamSource(stream).connect(worklet);
      await context.resume(); // some browsers begin in silence
      lines.say("Lines appear here while you speak.");
      if (over) stop();
    } catch {
      giveUp();
    }
  };
  return { stop, clear };
}

function address() {
  const url = new URL("v1/realtime?intent=transcription&keep=false", document.baseURI);
  url.protocol = url.protocol.replace("http", "ws");
  url.hash = "";
  return url;
}

/** Little-endian samples, as every machine with a browser has them. */
const base64 = (samples) => btoa(String.fromCharCode(...new Uint8Array(samples.buffer)));

function clear() {
  $("live").hidden = true;
  $("live").querySelector("ol").replaceChildren();
}

/** The lines on the page: by pieces of what was said, each with final lines and guesses at what follows. */
class Lines {
  constructor() {
    clear();
    this.list = $("live").querySelector("ol");
    this.pieces = new Map(); // by id: its node, its final lines, its guesses
    this.letters = []; // in order of appearance, which gives the colours
    this.say("");
  }

  say(text) {
    $("live").hidden = !text && !this.pieces.size;
    $("live").querySelector("p").textContent = text;
  }

  take(what, event) {
    const piece = this.piece(event.item_id);
    if (what === "delta" && event.provisional) piece.guesses = event.segments;
    else if (what === "segment") {
      piece.lines.push(event);
      piece.guesses = [];
      $("spoken").textContent = `${event.speaker}: ${event.text}`;
    } else if (what === "completed") {
      piece.lines = event.segments;
      piece.guesses = [];
      for (const { item_id, id, speaker } of event.relabelled) {
        const other = this.piece(item_id);
        for (const line of other.lines) if (line.id === id) line.speaker = speaker;
        this.draw(other);
      }
    } else if (what === "failed") piece.guesses = [];
    this.draw(piece);
  }

  piece(id) {
    if (!this.pieces.has(id)) {
      const piece = { node: h("li"), lines: [], guesses: [] };
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
