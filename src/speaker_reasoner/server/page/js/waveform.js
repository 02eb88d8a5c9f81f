/** The waveform: plays, zooms, and shows what is being listened to (wavesurfer.js and its regions). */

import { jobPath, request } from "./api.js";
import Regions from "../vendor/regions.esm.js";
import WaveSurfer from "../vendor/wavesurfer.esm.js";

const HEIGHT_PX = 84; // part of the shadow style sheet whose hash is in index.html
const dark = matchMedia("(prefers-color-scheme: dark)");

/**
 * Events: `ready`, `view` (zoomed, scrolled or resized), `time` (the position moved),
 * `playing` (started or stopped), `trouble` (detail: a message).
 */
export class Waveform extends EventTarget {
  ready = false;
  #surfer;
  #regions;
  #perS = 100;
  #abort = new AbortController();
  #shown = { now: [], heard: 0, missing: [] };
  #recolour = () => this.#surfer.setOptions(this.#colours());

  constructor(place) {
    super();
    this.place = place;
    this.#surfer = WaveSurfer.create({
      container: place, height: HEIGHT_PX, normalize: true, barWidth: 2, barGap: 1.5, barRadius: 2,
      cursorWidth: 1.5, hideScrollbar: true, dragToSeek: true, ...this.#colours(),
    });
    this.#regions = this.#surfer.registerPlugin(Regions.create());
    for (const name of ["scroll", "zoom", "redraw", "resize"]) this.#surfer.on(name, () => this.#emit("view"));
    for (const name of ["timeupdate", "seeking"]) this.#surfer.on(name, () => this.#emit("time"));
    for (const name of ["play", "pause", "finish"]) this.#surfer.on(name, () => this.#emit("playing"));
    this.#surfer.on("ready", () => {
      this.ready = true;
      this.show({});
      this.#emit("ready");
    });
    dark.addEventListener("change", this.#recolour);
    place.addEventListener("wheel", this.onWheel, { passive: false });
  }

  async load(id) {
    try {
      const answer = await request(jobPath(id, "/peaks"), { signal: this.#abort.signal });
      this.#perS = Number(answer.headers.get("x-peaks-per-second"));
      const bytes = new Uint8Array(await answer.arrayBuffer());
      const peaks = new Float32Array(bytes); // `normalize` divides by the loudest
      const url = answer.headers.get("x-audio") ?? jobPath(id, "/audio"); // signed, where there is a key: a player sends none
      await this.#surfer.load(url, [peaks], Number(answer.headers.get("x-duration")));
    } catch (error) {
      if (error.name !== "AbortError") this.#emit("trouble", `The recording cannot be played: ${error.message}`);
    }
  }

  destroy() {
    this.#abort.abort();
    dark.removeEventListener("change", this.#recolour);
    this.place.removeEventListener("wheel", this.onWheel);
    this.#surfer.destroy();
  }

  get time() { return this.#surfer.getCurrentTime(); }
  get playing() { return this.#surfer.isPlaying(); }
  /** Where the view starts and how wide all of the recording is, both in px. */
  get view() { return { left: this.#surfer.getScroll(), width: this.#surfer.getWrapper().clientWidth }; }

  toggle() { if (this.ready) this.#surfer.playPause(); }
  play(start, end) { if (this.ready) this.#surfer.play(start, end); }
  seek(seconds) { if (this.ready) this.#surfer.setTime(seconds); }
  rate(factor) { this.#surfer.setPlaybackRate(factor); }
  scroll(px) { this.#surfer.setScroll(this.#surfer.getScroll() + px); }

  zoom(factor) {
    if (!this.ready) return;
    const fit = this.place.clientWidth / this.#surfer.getDuration();
    const now = Math.max(fit, this.#surfer.options.minPxPerSec);
    const next = Math.min(Math.max(now * factor, fit), Math.max(2 * this.#perS, fit));
    this.#surfer.zoom(next <= fit * 1.01 ? 0 : next);
  }

  /** Bring a time into view. */
  reveal(seconds) {
    if (!this.ready) return;
    const { left, width } = this.view;
    const at = (seconds / this.#surfer.getDuration()) * width - left;
    if (at < 0 || at > this.place.clientWidth) this.#surfer.setScroll(left + at - this.place.clientWidth / 3);
  }

  /** Zoom on ctrl+wheel, scroll on a sideways one; the lanes use it too. */
  onWheel = (event) => {
    if (event.ctrlKey) this.zoom(event.deltaY < 0 ? 1.25 : 0.8);
    else if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) this.scroll(event.deltaX);
    else return;
    event.preventDefault();
  };

  /**
   * Draw the boxes that are listened to now, what is missing, and a veil over what has not been heard.
   * @param {{now: Array?, heard: number?, missing: Array?}} what changed; `heard` in s.
   */
  show(what) {
    Object.assign(this.#shown, what);
    if (!this.ready) return;
    const { now, heard, missing } = this.#shown;
    const wanted = [
      ...missing.map((one) => ["missing", one.start, one.end]),
      ...(heard < this.#surfer.getDuration() ? [["unheard", heard, this.#surfer.getDuration()]] : []),
      ...now.map((one) => ["now", one.start, one.end]),
    ];
    const keys = new Set(wanted.map((one) => one.join("-")));
    const there = new Map(this.#regions.getRegions().filter((one) => one.id !== "edited").map((one) => [one.key, one]));
    for (const [key, region] of there) if (!keys.has(key)) region.remove();
    for (const [id, start, end] of wanted) {
      const key = [id, start, end].join("-");
      if (!there.has(key)) there.set(key, Object.assign(this.#region(id, start, end), { key }));
    }
  }

  /** Handles at both ends of a stretch; `onchange(start, end)`. @returns {{set, remove}} */
  handles(start, end, onchange) {
    if (!this.ready) return { set() {}, remove() {} };
    const region = this.#region("edited", start, end, true);
    region.on("update", () => onchange(region.start, region.end));
    return { set: (from, to) => region.setOptions({ start: from, end: to }), remove: () => region.remove() };
  }

  #region(id, start, end, resize = false) {
    return this.#regions.addRegion({ id, start, end, drag: false, resize, minLength: 0.1, color: `var(--region-${id})` });
  }

  /** A canvas needs plain colours, which `light-dark()` in a custom property is not. */
  #colours() {
    const of = (name) => {
      this.place.style.color = `var(--${name})`;
      return getComputedStyle(this.place).color;
    };
    return { waveColor: of("wave"), progressColor: of("wave-played"), cursorColor: of("ink") };
  }

  #emit(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}
