/** Plain words for what the server warns of; the server's own stay within reach. */

const SAID = [
  [/does not sound like what the (checkpoint|model) knows \(([^)]*)\)/, (_, __, domain) => `This recording is of another kind than this model knows (${domain}). Do not trust the words.`],
  [/^no speech was found/, () => "Nobody was heard speaking: there is silence, noise or music."],
  [/speakers are not linked between/, () => "One person may have several names: speakers were told apart within each stretch, and not over the whole recording."],
  [/^(\d+) words? (?:was|were) recognised and left out: (.*)$/, (_, n, why) => `${n} ${n === "1" ? "word" : "words"} that were heard are not in the transcript: ${why}.`],
  [/^more than one language was recognised: ([^;]*)/, (_, languages) => `More than one language was heard (${languages}). If there is only one, the transcript may be wrong where it seems to be another.`],
];

/** @param {string} warning */
export function plain(warning) {
  for (const [pattern, say] of SAID) {
    const found = pattern.exec(warning);
    if (found) return say(...found);
  }
  return warning;
}
