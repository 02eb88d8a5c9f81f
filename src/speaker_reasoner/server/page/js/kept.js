/** The microphone's samples that are in no complete piece, so that another socket goes on where one broke. */

export const RATE_HZ = 24_000;
const LEAST_S = 3, MOST_S = 10; // of a clip of somebody's voice
const MOST_CLIPS = 8; // that a session is given (assumed)

export class Kept {
  #blocks = []; // {at, samples}: the number of the first sample of the recording, and 16-bit samples
  #unsent = 0; // the number of the first sample that was not given to the socket
  #clips = new Map(); // by speaker: {line, samples}
  now = 0; // samples of the recording so far

  push(samples) {
    this.#blocks.push({ at: this.now, samples });
    this.now += samples.length;
  }

  get seconds() {
    return (this.now - (this.#blocks[0]?.at ?? this.now)) / RATE_HZ;
  }

  /** The next samples to send; null if all were sent. */
  next() {
    if (this.#unsent >= this.now) return null;
    const [first] = this.#blocks; // they are of one length
    const { at, samples } = this.#blocks[Math.round((this.#unsent - first.at) / first.samples.length)];
    this.#unsent = at + samples.length;
    return samples;
  }

  /** Send all that is kept once more; the number of its first sample. */
  rewind() {
    this.#unsent = this.#blocks[0]?.at ?? this.now;
    return this.#unsent;
  }

  /** What lies before a sample is not needed any more. */
  forget(until) {
    const first = this.#blocks.findIndex(({ at, samples }) => at + samples.length > until);
    const dropped = this.#blocks.splice(0, first < 0 ? this.#blocks.length : first).at(-1);
    if (dropped) this.#unsent = Math.max(this.#unsent, dropped.at + dropped.samples.length);
  }

  /** Keep the longest line of a speaker as a clip of the voice. */
  learn(speaker, line, start, end) {
    const until = Math.min(end, start + MOST_S * RATE_HZ), length = until - start;
    if (length < LEAST_S * RATE_HZ || length <= (this.#clips.get(speaker)?.samples.length ?? 0)) return;
    const clip = new Int16Array(length);
    for (const { at, samples } of this.#blocks) {
      const from = Math.max(at, start), to = Math.min(at + samples.length, until);
      if (from < to) clip.set(samples.subarray(from - at, to - at), from - start);
    }
    if ((this.#blocks[0]?.at ?? this.now) <= start && until <= this.now) this.#clips.set(speaker, { line, samples: clip });
  }

  /** A line was somebody else's. */
  unlearn(line) {
    for (const [speaker, clip] of this.#clips) if (clip.line === line) this.#clips.delete(speaker);
  }

  /** A clip of each speaker, as a data URL. */
  clips() {
    return new Map([...this.#clips].slice(0, MOST_CLIPS).map(([speaker, { samples }]) => [speaker, `data:audio/wav;base64,${base64(wav(samples))}`]));
  }
}

/** Samples as little-endian bytes, as every machine with a browser has them. */
export function base64(samples) {
  const bytes = new Uint8Array(samples.buffer, samples.byteOffset, samples.byteLength), parts = [];
  for (let at = 0; at < bytes.length; at += 8192) parts.push(String.fromCharCode(...bytes.subarray(at, at + 8192)));
  return btoa(parts.join(""));
}

function wav(samples) {
  const whole = new Int16Array(22 + samples.length), view = new DataView(whole.buffer);
  const text = (at, word) => [...word].forEach((letter, n) => view.setUint8(at + n, letter.charCodeAt(0)));
  const number = (at, value, bytes = 4) => (bytes === 2 ? view.setUint16(at, value, true) : view.setUint32(at, value, true));
  text(0, "RIFF"); number(4, 36 + samples.byteLength); text(8, "WAVEfmt "); number(16, 16);
  number(20, 1, 2); number(22, 1, 2); number(24, RATE_HZ); number(28, 2 * RATE_HZ); number(32, 2, 2); number(34, 16, 2);
  text(36, "data"); number(40, samples.byteLength);
  whole.set(samples, 22);
  return whole;
}
