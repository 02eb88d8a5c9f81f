/** Runs beside the page, in the audio thread: passes on what the microphone hears, a tenth of a second at a time. */

const SAMPLES = 2400; // at 24 kHz

registerProcessor("pcm", class extends AudioWorkletProcessor {
  constructor() {
    super();
    this.held = new Int16Array(SAMPLES);
    this.filled = 0;
  }

  process([[mono]]) {
    for (const sample of mono ?? []) {
      this.held[this.filled++] = Math.max(-32768, Math.min(32767, Math.round(sample * 32768)));
      if (this.filled < SAMPLES) continue;
      this.port.postMessage(this.held.slice());
      this.filled = 0;
    }
    return true;
  }
});
