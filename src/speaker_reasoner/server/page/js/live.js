/**
 * Lines while one speaks, over a socket. They are only shown: the recording that the browser keeps is what is sent
 * and transcribed in the end, whatever becomes of the socket. Where it breaks, another one goes on behind the last
 * piece that was complete, with clips of who spoke before.
 */

import { key } from "./api.js";
import { base64, Kept, RATE_HZ } from "./kept.js";
import { clear, Lines } from "./lines.js";

const PAUSE_MS = 900; // ends a piece: longer pieces have more of each voice (assumed)
const MOST_WAITING = 2 ** 20; // bytes: about 16 s that the network did not take
const MOST_KEPT_S = 600; // of sound that no piece holds (assumed)
const LATE_S = 10; // the server finds speech at most 8 s late
const FIRST_MS = 500, LAST_MS = 15_000; // before the next try
const LINE = "conversation.item.input_audio_transcription.";
const FALLBACK = "Lines cannot be shown just now. The recording goes on, and is transcribed when you stop.";

/**
 * Show what is said on a microphone's stream.
 * @param {MediaStream} stream
 * @param {string} speakers how many people speak, such as "2-5"; may be empty.
 * @returns {{stop: function(), clear: function()}} to end it; what is shown stays until `clear`.
 */
export function showLive(stream, speakers) {
  const live = new Live(speakers);
  live.connect();
  live.listen(stream);
  return { stop: () => live.stop(), clear };
}

class Live {
  #lines = new Lines();
  #kept = new Kept();
  #speakers;
  #socket = null;
  #context = null;
  #over = false;
  #waitMs = FIRST_MS;
  #ready = false; // whether the session takes sound
  #sessions = 0;
  #began = 0; // the sample at which it began
  #asked = null; // the sample up to which the server was asked whether it has all
  #begun = new Set(); // pieces that are not complete
  #clips = new Map(); // that the session was given
  #knows = true; // whether the server takes them

  constructor(speakers) {
    this.#speakers = speakers;
  }

  stop() {
    this.#over = true;
    this.#socket?.close();
    this.#context?.close().catch(() => {});
    this.#lines.settle();
  }

  #giveUp() {
    if (this.#over) return;
    this.stop();
    this.#lines.say(FALLBACK);
  }

  async listen(stream) {
    if (this.#over) return;
    try {
      this.#context = new AudioContext({ sampleRate: RATE_HZ });
      await this.#context.audioWorklet.addModule(new URL("pcm.js", import.meta.url));
      const worklet = new AudioWorkletNode(this.#context, "pcm", { numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit" });
      worklet.port.onmessage = ({ data }) => this.#take(data);
      this.#context.createMediaStreamSource(stream).connect(worklet);
      await this.#context.resume(); // some browsers begin in silence
      if (this.#over) await this.#context.close();
    } catch {
      this.#giveUp();
    }
  }

  #take(samples) {
    if (this.#over) return;
    this.#kept.push(samples);
    if (this.#kept.seconds > MOST_KEPT_S) this.#giveUp();
    else this.#pump();
  }

  #pump() {
    while (this.#ready && this.#socket.readyState === WebSocket.OPEN && this.#socket.bufferedAmount < MOST_WAITING) {
      const samples = this.#kept.next();
      if (!samples) return this.#quiet();
      this.#send("input_audio_buffer.append", { audio: base64(samples) });
    }
  }

  /** Where nobody speaks, no piece says how far the server is: ask. It answers behind all that was sent. */
  #quiet() {
    if (this.#asked !== null || this.#begun.size || this.#kept.seconds < 2 * LATE_S) return;
    this.#asked = this.#kept.now;
    this.#send("session.update", { session: { type: "transcription" } });
  }

  #answered() {
    if (!this.#begun.size) this.#kept.forget(this.#asked - LATE_S * RATE_HZ);
    this.#asked = null;
  }

  // ---- the socket ----

  connect() {
    if (this.#over) return;
    let socket;
    try {
      const carried = key() === null ? [] : [`openai-insecure-api-key.${key()}`];
      socket = new WebSocket(address(), ["realtime", ...carried]);
    } catch { // a key that no socket can carry
      return this.#giveUp();
    }
    this.#socket = socket;
    socket.onopen = () => this.#configure();
    socket.onmessage = ({ data }) => this.#receive(JSON.parse(data));
    socket.onclose = () => this.#lost();
  }

  #lost() {
    this.#ready = false;
    if (this.#over) return;
    this.#lines.say(FALLBACK);
    setTimeout(() => this.connect(), this.#waitMs);
    this.#waitMs = Math.min(2 * this.#waitMs, LAST_MS);
  }

  #send(type, body) {
    this.#socket.send(JSON.stringify({ type, ...body }));
  }

  #configure() {
    const turns = { type: "server_vad", silence_duration_ms: PAUSE_MS };
    this.#clips = this.#knows ? this.#kept.clips() : new Map();
    const known = { known_speaker_names: [...this.#clips.keys()], known_speaker_references: [...this.#clips.values()] };
    this.#send("session.update", { session: {
      type: "transcription", audio: { input: { turn_detection: turns } },
      ...(this.#speakers ? { speakers: this.#speakers } : {}), ...(this.#clips.size ? known : {}),
    } });
  }

  #begin() {
    this.#waitMs = FIRST_MS;
    this.#asked = null;
    this.#begun.clear();
    this.#began = this.#kept.rewind();
    if (this.#sessions++) this.#lines.anew(this.#clips.keys());
    this.#lines.say(this.#lines.pieces.size ? "" : "Lines appear here while you speak.");
    this.#ready = true;
    this.#pump();
  }

  #receive(event) {
    if (this.#over) return;
    const { type, item_id: id } = event;
    if (type === "session.updated") this.#ready ? this.#answered() : this.#begin();
    else if (type === "error" && !this.#ready && this.#clips.size) {
      this.#knows = false; // it hears no voices, or not these
      this.#configure();
    } else if (type === "error" && !this.#ready) this.#socket.close();
    else if (type === "input_audio_buffer.speech_started") this.#begun.add(id);
    else if (type.startsWith(LINE)) {
      const what = type.slice(LINE.length);
      this.#lines.take(what, event);
      if (["completed", "failed"].includes(what)) this.#begun.delete(id);
      if (what === "completed") this.#complete(event);
    }
  }

  /** Forget the samples of a piece, but for clips of who spoke. */
  #complete({ item_id: id, segments, relabelled, end }) {
    for (const line of relabelled) this.#kept.unlearn(`${line.item_id} ${line.id}`);
    for (const line of segments.filter((one) => !one.overlap)) {
      const [from, to] = [line.start, line.end].map((at) => this.#began + Math.round(at * RATE_HZ));
      this.#kept.learn(line.speaker, `${id} ${line.id}`, from, to);
    }
    this.#kept.forget(this.#began + Math.floor(end * RATE_HZ));
  }
}

function address() {
  const url = new URL("v1/realtime?intent=transcription&keep=false", document.baseURI);
  url.protocol = url.protocol.replace("http", "ws");
  url.hash = "";
  return url;
}
