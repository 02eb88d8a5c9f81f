/** The loudness of a WAV file while it arrives, so that hours of it need not be held or decoded. */

export const PEAKS_PER_S = 100;

/**
 * Read 16-bit PCM mono to its peaks.
 * @param {Response} response a WAV file.
 * @param {boolean} keep also return the file, for a player that cannot fetch it itself.
 * @returns {Promise<{peaks: Float32Array, duration: number, file: Blob|null}>} peaks 0..1, duration in s.
 */
export async function readPeaks(response, keep) {
  const reader = response.body.getReader();
  const kept = [], peaks = [];
  let head = new Uint8Array(0), form = null, rest = null, peak = 0, filled = 0, samples = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    if (keep) kept.push(value);
    let bytes = value;
    if (form === null) {
      bytes = head = join(head, value);
      form = header(head);
      if (form === null) continue;
      bytes = head.subarray(form.offset);
    }
    if (rest !== null) bytes = join(rest, bytes);
    const whole = bytes.length - (bytes.length % 2);
    rest = whole < bytes.length ? bytes.slice(whole) : null;
    const view = new DataView(bytes.buffer, bytes.byteOffset, whole);
    for (let at = 0; at < whole; at += 2) {
      const loud = Math.abs(view.getInt16(at, true));
      if (loud > peak) peak = loud;
      if (++filled >= form.rate / PEAKS_PER_S) {
        peaks.push(peak / 32768);
        peak = filled = 0;
      }
    }
    samples += whole / 2;
  }
  if (form === null) throw new Error("The recording is not a WAV file.");
  if (filled) peaks.push(peak / 32768);
  const file = keep ? new Blob(kept, { type: "audio/wav" }) : null;
  return { peaks: Float32Array.from(peaks), duration: samples / form.rate, file };
}

function join(a, b) {
  const both = new Uint8Array(a.length + b.length);
  both.set(a);
  both.set(b, a.length);
  return both;
}

/** Where the samples start and their rate; null while too little has arrived. */
function header(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const tag = (at) => String.fromCharCode(...bytes.subarray(at, at + 4));
  let rate = 0;
  for (let at = 12; at + 8 <= bytes.length; at += 8 + view.getUint32(at + 4, true)) {
    if (tag(at) === "fmt " && at + 24 <= bytes.length) {
      const [kind, channels, bits] = [view.getUint16(at + 8, true), view.getUint16(at + 10, true), view.getUint16(at + 22, true)];
      if (kind !== 1 || channels !== 1 || bits !== 16) {
        throw new Error(`Expected 16-bit mono PCM, got format ${kind}, ${channels} channels, ${bits} bits.`);
      }
      rate = view.getUint32(at + 12, true);
    }
    if (tag(at) === "data") return { offset: at + 8, rate };
  }
  return null;
}
