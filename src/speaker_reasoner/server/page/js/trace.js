/** How it listened: the turns of one chunk, what it heard, thought and boxed. */

import { get, jobPath } from "./api.js";
import { $, clock, count, h, icon } from "./dom.js";

const RATE_HZ = 16_000;
const STOPS = {
  answered: "Then there was nothing left to hear.",
  "turn-limit": "It stopped, since it had taken as many steps as it may",
  malformed: "It stopped, since it wrote something that cannot be read",
  engine: "It stopped, since the model failed",
};

/** Show the chunk of a segment, its turn first in sight. */
export async function showTrace(recording, waveform, segment) {
  const trace = await get(`${jobPath(recording.id, "/trace")}?chunk=${segment.chunk}`);
  const dialog = $("trace");
  const turns = readTurns(trace.parts);
  const stop = STOPS[trace.stop] ?? trace.stop;
  dialog.querySelector(".dialog-body").replaceChildren(
    h("p", { class: "lead" }, `The stretch from ${clock(trace.start)} to ${clock(trace.start + trace.duration)}, in ${count(turns.length, "step")}.`),
    h("ol", { class: "turns" }, ...turns.map((turn, k) => turnNode(turn, k, trace.start, waveform, k === segment.turn))),
    stop ? h("p", { class: "stop" }, trace.detail ? `${stop.replace(/\.$/, "")}: ${trace.detail}` : stop) : null,
    h("details", {}, h("summary", {}, "All it read and wrote, word for word"), h("pre", {}, ...verbatim(trace.parts))),
  );
  dialog.showModal();
  dialog.querySelector(".turn.here")?.scrollIntoView({ block: "center" });
}

/** Group parts to turns: clips recalled, slice heard (in samples of the chunk), what was written. */
function readTurns(parts) {
  const turns = [];
  let recalled = [], heard = null;
  for (const part of parts) {
    if (part.audio && part.clip) recalled.push(part.audio);
    else if (part.audio) heard = part.audio;
    else if (part.answer !== undefined) {
      const think = /<think>([\s\S]*?)(?:<\/think>|$)/.exec(part.answer);
      const box = /<box>\s*\[\s*([\d.]+)\s*,\s*([\d.]+)\s*\]/.exec(part.answer);
      const thought = (think ? think[1] : part.answer.replace(/<\/?\w+>.*$/s, "")).trim();
      turns.push({ recalled, heard, thought, box: box && [Number(box[1]), Number(box[2])] });
      recalled = [];
    }
  }
  return turns;
}

function turnNode(turn, k, offset, waveform, here) {
  const from = (samples) => offset + samples / RATE_HZ;
  const slice = (start, end) =>
    h("button", { type: "button", class: "slice", onclick: () => waveform.play(start, end) }, icon("play"), `${clock(start, 1)} – ${clock(end, 1)}`);
  return h(
    "li",
    { class: here ? "turn here" : "turn", "aria-current": here ? "true" : null },
    h("dl", {},
      turn.recalled.length ? h("dt", {}, "Remembered") : null,
      turn.recalled.length ? h("dd", {}, `${count(turn.recalled.length, "voice")} from before, ${(turn.recalled.reduce((sum, [a, b]) => sum + b - a, 0) / RATE_HZ).toFixed(1)} s`) : null,
      turn.heard ? h("dt", {}, "Heard") : null,
      turn.heard ? h("dd", {}, slice(from(turn.heard[0]), from(turn.heard[1])), k ? null : " all of it") : null,
      h("dt", {}, "Wrote"),
      h("dd", {}, ...(turn.thought || "(nothing)").split("\n").map((line) => h("p", {}, line))),
      h("dt", {}, turn.box ? "Next it heard" : "Then"),
      h("dd", {}, turn.box ? slice(offset + turn.box[0], offset + turn.box[1]) : "it was done"),
    ),
  );
}

function verbatim(parts) {
  return parts.map((part) => {
    if (part.audio) return h("mark", {}, `[audio${part.clip ? ` of voice ${part.clip}` : ""}: samples ${part.audio[0]} to ${part.audio[1]}]`);
    return part.answer === undefined ? part.text : h("b", {}, part.answer);
  });
}
