"""Write the tables of README and model card from the stored results, between their markers.

python benchmarks/tables.py          # write
python benchmarks/tables.py --check  # exit 1 if a table is not what the results say
"""

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs" / "results"
FILES = (
    ROOT / "README.md",
    ROOT / "src/speaker_reasoner/checkpoints/tiny/README.md",
    ROOT / "docs/embedded.md",
    ROOT / "docs/real-speech.md",
    ROOT / "docs/speed.md",
    ROOT / "docs/server.md",
    ROOT / "docs/evaluation.md",
    ROOT / "docs/whole-meetings.md",
    ROOT / "docs/stages.md",
    ROOT / "docs/engines.md",
)


def load(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return loaded


def percent(rate: float | None) -> str:
    return "–" if rate is None else f"{100 * rate:.1f} %"


def heldout_table() -> str:
    stored = load("heldout-assembled")
    rows = ["| meetings | n | cpWER | WER | DER (collar 0.25 s) | gender | speaker count |"]
    rows.append("|---|--:|--:|--:|--:|--:|--:|")
    groups = {"all": {"meetings": stored["meetings"], **stored["scores"]}, **stored["subsets"]}
    for name, row in groups.items():
        rates = [row[k]["rate"] for k in ("cpwer", "wer", "der_025", "gender", "speaker_count")]
        cells = [name, str(row["meetings"]), *map(percent, rates)]
        rows.append("| " + " | ".join(cells) + " |")
    low, high = stored["intervals_95"]["cpwer"]
    der_low, der_high = stored["intervals_95"]["der_025"]
    rows.append("")
    rows.append(
        f"{stored['finished']} of {stored['meetings']} dialogues finished. 95 % intervals over meetings: "
        f"cpWER {percent(low)} to {percent(high)}, DER {percent(der_low)} to {percent(der_high)}."
    )
    return "\n".join(rows)


def embedded_sentence() -> str:
    stored = load("heldout-assembled")
    cpwer, wer, der, speakers = (
        percent(stored["scores"][k]["rate"]) for k in ("cpwer", "wer", "der_025", "speaker_count")
    )
    return (
        f"Within its domain, on {stored['meetings']} held-out meetings: cpWER {cpwer}, WER {wer}, DER {der}, the "
        f"right number of speakers in {speakers} ([all figures](docs/embedded.md), [speed](docs/speed.md))."
    )


def witness_table() -> str:
    rows = ["| speakers by | cpWER | DER (collar 0.25 s) | speaker count |", "|---|--:|--:|--:|"]
    for name, what in (
        ("assembled", "dialogue and voices"),
        ("dialogues-alone", "dialogue alone (`--witness none`)"),
    ):
        scores = load(f"heldout-{name}")["scores"]
        rates = [scores[k]["rate"] for k in ("cpwer", "der_025", "speaker_count")]
        rows.append("| " + " | ".join([what, *map(percent, rates)]) + " |")
    return "\n".join(rows)


def benchmark_table() -> str:
    turns, batch = load("turns"), load("batch")
    rows = ["| dialogue of | kept cache | cache recomputed / kept | answer by model / assembled |"]
    rows.append("|---|--:|--:|--:|")
    for row in turns["dialogues"]:
        kept = row["seconds"]["kept"]["median"]
        ratios = row["ratios"]
        rows.append(
            f"| {row['turns']} turns | {kept:.2f} s | {ratios['recomputed/kept']['median']:.2f} "
            f"| {ratios['answer-model/assembled']['median']:.2f} |"
        )
    rows += ["", "| dialogues at once | 16 recordings | speed-up |", "|---|--:|--:|"]
    for size, seconds in batch["seconds"].items():
        speed_up = batch["speed_up"][size]["median"]
        rows.append(f"| {size} | {seconds['median']:.1f} s | {speed_up:.2f} |")
    machine = turns["machine"]
    rows += [
        "",
        f"Medians of paired runs on {machine['cores']} cores ({machine['processor']}), float32.",
    ]
    return "\n".join(rows)


def domain_sentence() -> str:
    result = load("heldout-assembled")["foreign"]
    return (
        f"Measured: the warning came on {result['foreign_warned']} of {result['foreign']} recordings of "
        f"real or neural voices, and stayed away on {result['held_out_not_warned']} of "
        f"{result['held_out']} held-out meetings (floor {result['floor']:.2f})."
    )


def conventions_table() -> str:
    from speaker_reasoner.evaluate import CONVENTIONS
    from speaker_reasoner.evaluate.breakdown import CONVENTIONS as GROUPS

    rows = ["| key | definition |", "|---|---|"]
    rows += [f"| `{name}` | {text} |" for name, text in {**CONVENTIONS, **GROUPS}.items()]
    return "\n".join(rows)


def embedded_evaluation() -> str:
    from speaker_reasoner.evaluate.stored import LABELS

    pair = [load(f"evaluation-{mode}") for mode in ("segmented", "long-form")]
    rows = ["| metric | in pieces | whole |", "|---|--:|--:|"]
    for name, label in LABELS.items():
        values = [(result["scores"][name] or {}).get("rate") for result in pair]
        as_text = [f"{v:.2f}" if name == "speaker_count_error" else percent(v) for v in values]
        rows.append(f"| {label} | {' | '.join(as_text)} |")
    speed = [f"{result['speed']['real_time_factor']:.3f}" for result in pair]
    rows.append(f"| real-time factor | {' | '.join(speed)} |")
    counts = [f"{len(result['recordings'])}" for result in pair]
    rows.append(f"| recordings | {' | '.join(counts)} |")
    return "\n".join(rows)


def paper_tables() -> str:
    from speaker_reasoner.evaluate.tables import render

    segmented, whole = load("evaluation-segmented"), load("evaluation-long-form")
    return "\n\n".join(
        render(table, [result], "markdown").strip()
        for table, result in (
            ("segmented", segmented),
            ("long-form", whole),
            ("attributes", segmented),
            ("multi-domain", segmented),
        )
    )


def other_figures() -> str:
    from speaker_reasoner.evaluate.tables import render

    return render("elsewhere", [], "markdown").strip()


def leaderboard_cost() -> str:
    stored = load("leaderboard-time")
    return (
        f"To score its {stored['results']} results takes {stored['scoring_s']:.2f} s, to compare them and write the "
        f"page {stored['leaderboard_s']:.2f} s, and to write it again, nothing having changed, "
        f"{1000 * stored['leaderboard_again_s']:.0f} ms "
        f"(`{stored['command']}`; in one process, without the start of Python)."
    )


def scoring_sentence() -> str:
    stored = load("scoring")
    return (
        f"Scoring {stored['recordings']} meetings of {stored['data']} ({stored['segments']:,} segments, "
        f"copies with planted errors) with every metric and subset takes {stored['score_s']:.0f} s on "
        f"{stored['machine']['cores']} cores (`{stored['command']}`)."
    )


def table(head: str, rows: list[list[str]]) -> str:
    """Markdown; the first column to the left, the others to the right."""
    names = head.split("|")
    lines = [
        "| " + " | ".join(name.strip() for name in names) + " |",
        "|---|" + "--:|" * (len(names) - 1),
    ]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def rate(scores: dict[str, Any], name: str) -> float | None:
    value: float | None = (scores.get(name) or {}).get("rate")
    return value


def longform_table(stored_name: str = "longform") -> str:
    stored = load(stored_name)
    variants = stored["variants"]
    base = variants["chunks, oracle links"]
    names = {
        "chunks, oracle links": "the default, each chunk for itself (an oracle links them)",
        "chunks, dialogues alone": "dialogues alone, each chunk for itself",
        "neither": "neither: nothing links the chunks",
        "cache as published": "the paper's cache (phi, no voices compared)",
        "witness alone": "voices alone (the default)",
        "both": "cache and voices",
        "names": "the default, two people of each meeting enrolled by a clip",
    }
    rows = []
    for name, title in names.items():
        row = variants.get(name)
        if row is None:
            continue
        cells = [title]
        for metric in ("cpwer", "der_025"):
            value = row[metric]["rate"]
            cells += [percent(value), f"{value / base[metric]['rate']:.2f}"]
        right = sum(ours == theirs for ours, theirs in row.get("speakers", ()))
        counted = f"{right} of {len(row['speakers'])}" if "speakers" in row else "–"
        rows.append([*cells, counted])
    text = table("|cpWER|factor|DER (0.25 s)|factor|count right", rows)
    low, high = variants["witness alone"]["intervals_95"]["cpwer"]
    named = variants["names"]
    return (
        f"{text}\n\n{stored['meetings']} meetings, {stored['minutes']:g} minutes, "
        f"{min(stored['people'])} to {max(stored['people'])} people; WER {percent(rate(base, 'wer'))}. "
        f"95 % interval of the default's cpWER over meetings: {percent(low)} to {percent(high)}. Of the "
        f"enrolled people's words {percent(named['named_right'])} carry their name, of the strangers' "
        f"{percent(named['strangers_named'])} somebody's."
    )


def real_table() -> str:
    rows = []
    for row in load("real")["rows"]:
        hint = f", told that there are {row['speakers_given']}" if row["speakers_given"] else ""
        language = (
            f"{row['language']} ({row['language_probability']:.2f})" if row["language"] else "–"
        )
        people = f"{row['speakers']} of {row.get('reference_speakers', '?')}"
        scores = [percent(row.get(name)) for name in ("cpwer", "wer", "der_025")]
        tuned = "yes" if row["tuned"] else "no"
        length = f"{row['duration_s']:.0f} s"
        rows.append([f"`{row['clip']}`{hint}", length, tuned, people, *scores, language])
    head = "clip|length|settings chosen on it|speakers found|cpWER|WER|DER (0.25 s)|language"
    return table(head, rows)


def real_sentence() -> str:
    stored = load("real")
    rows = {row["clip"]: row for row in reversed(stored["rows"])}
    call, podcast = rows["two_party_call.wav"], rows["podcast_3spk.mp3"]
    ami = [row for name, row in rows.items() if name.startswith("ami_")]
    mean = sum(row["der_025"] for row in ami) / len(ami)
    right = sum(row["speakers"] == row["reference_speakers"] for row in ami)
    silent = sum(row["words"] == 0 for row in stored["silence"])
    return (
        f"Measured on two cores: cpWER {percent(podcast['cpwer'])} on a podcast of "
        f"{podcast['reference_speakers']} ({podcast['speakers']} found) and {percent(call['cpwer'])} on a "
        f"telephone call ({call['speakers']} of {call['reference_speakers']} found), both without a hint; in "
        f"{len(ami)} half-minute clips of AMI's far-field microphone a mean DER of {percent(mean)} and the "
        f"right number of speakers in {right}; no words in {silent} of {len(stored['silence'])} recordings "
        "without speech (`python benchmarks/real.py`; settings were chosen on four of these clips)."
    )


def real_time() -> str:
    stored = load("real")["time"]
    return (
        f"On the podcast (352 s), paired in one process, {stored['rounds']} rounds: the whole cascade takes "
        f"{stored['wall_ratio']:.2f} times the time of faster-whisper alone with the same model and beam, and "
        f"is {stored['times_real_time']:.1f} times faster than real time."
    )


def real_memory() -> str:
    rows = load("scaling-memory-cascade")["recordings"].values()
    short, long = (row["peak_mib"]["median"] for row in rows)
    ratio = load("scaling-memory-cascade")["ratio"]["median"]
    return (
        f"Peak memory is {short:.0f} MiB for a recording of 10 minutes and {long:.0f} MiB for one of 4 hours "
        f"(ratio {ratio:.2f})."
    )


def real_confidence() -> str:
    stored = load("real")
    rows = [
        [
            f"{row['from']:.2f} to {row['to']:.2f}",
            str(row["segments"]),
            f"{row['seconds']:.0f} s",
            f"{row['confidence']:.2f}",
            f"{row['right']:.2f}",
        ]
        for row in stored["speaker_confidence"]
    ]
    genders = [row["gender"] for row in stored["rows"] if "gender" in row]
    right, total = (sum(g[key] for g in genders) for key in ("right", "total"))
    return (
        table(
            "confidence in the speaker|segments|length|mean confidence|share of it that is right",
            rows,
        )
        + f"\n\nGender is right in {right} of {total} reference segments whose gender is known; segments that were "
        "not found or whose gender was left open count as wrong."
    )


def steps_table() -> str:
    stored = load("steps")
    names = {"assembled": "assembled from the turns (default)", "model": "written by the model"}
    rows = []
    for answer, row in stored["answers"].items():
        forwards, faster = row["forwards_a_token"], row["times_faster"]
        rows.append(
            [
                names[answer],
                f"{forwards['one by one']:.2f}",
                f"{forwards['drafts']:.2f}",
                f"{faster['median']:.2f} ({faster['min']:.2f} to {faster['max']:.2f})",
                "yes" if row["same_tokens"] else "no",
                f"{row['largest_difference_of_a_probability']:.0e}",
            ]
        )
    head = (
        "answer|forwards a token, one by one|with drafts|times faster|same tokens"
        "|largest difference of a probability"
    )
    return table(head, rows) + f"\n\n{stored['recordings']} held-out meetings, one at a time."


def upstream_table() -> str:
    stored = load("upstream")
    rows = []
    for name, seconds in stored["seconds"].items():
        ratio = stored["times_faster"].get(name)
        faster = (
            f"{ratio['median']:.1f} ({ratio['min']:.1f} to {ratio['max']:.1f})" if ratio else "1"
        )
        rows.append([name, f"{seconds['median']:.2f} s", faster])
    lengths = ", ".join(f"{length:.0f}" for length in stored["recordings"])
    return table("|time|times faster than upstream", rows) + (
        f"\n\n{len(stored['recordings'])} held-out meetings of {lengths} s, {stored['repeats']} repeats; the "
        f"same turns in {stored['same_turns']} of them."
    )


def linking_table() -> str:
    stored = load("linking")
    people, strange = (" ".join(map(str, stored[key])) for key in ("people", "strange_people"))
    rows = [
        [
            row["name"],
            percent(row["mislabelled"]),
            " ".join(map(str, row["found"])),
            percent(row["mislabelled_in_pieces"]),
            percent(row["count_right_in_pieces"]),
            percent(row["strange_mislabelled"]),
            " ".join(map(str, row["strange_found"])),
            percent(row["strange_mislabelled_in_pieces"]),
            percent(row["strange_count_right_in_pieces"]),
        ]
        for row in stored["settings"]
    ]
    return table(
        f"|mislabelled|speakers found (there are {people})|in single chunks|count right|unseen voices"
        f"|speakers found (there are {strange})|in single chunks|count right",
        rows,
    )


def names_table() -> str:
    shares = ("named_right", "strangers_named", "absent_named")
    rows = [
        [
            f"{row['elsewhere']:g}",
            *(percent(row[prefix + share]) for prefix in ("", "strange_") for share in shares),
        ]
        for row in load("linking")["names"]
    ]
    return table(
        "threshold|enrolled people under their name|others under one|under the name of somebody absent"
        "|unseen voices: enrolled|others|absent",
        rows,
    )


def cosines_table() -> str:
    names = ("same_1", "same_5", "same_50", "likest_50", "likest_95", "likest_99")
    stored = load("linking")
    rows = [
        [title, f"{row['seconds']} s", *(f"{row[name]:.2f}" for name in names)]
        for title, key in (("development", "cosines"), ("unseen", "strange_cosines"))
        for row in stored[key]
    ]
    return table(
        "voices|seconds of each|one speaker: 1 % are below|5 % below|half|most similar other: half|5 % above|1 % above",
        rows,
    )


def cache_table() -> str:
    rows = [
        [
            f"{row['alpha']:g}",
            str(row["entries"]),
            f"{row['budget_s']:g} s",
            percent(rate(row, "cpwer")),
            percent(rate(row, "der_025")),
        ]
        for row in load("cache")["settings"]
    ]
    return table("alpha|entries of a person|budget|cpWER|DER (0.25 s)", rows)


def constraint_sentence() -> str:
    said = []
    for name, row in load("constraint")["sets"].items():
        where = (
            f"in {row['recordings']} held-out meetings"
            if name == "held-out"
            else "in foreign speech"
        )
        said.append(
            f"{where}, {row['turns']} turns took {row['requests']} requests "
            f"({row.get('turns_asked_again', 0)} were asked for again), where two for each span would "
            f"have taken {row['requests_with_two_for_each_span']}"
        )
    return (
        f"Measured with the embedded checkpoint under the expression alone: {'; '.join(said)} "
        "(`python benchmarks/constraint.py`)."
    )


def scaling_sentence() -> str:
    time, memory = load("scaling-time"), load("scaling-memory")
    times = [row["s_per_minute"]["median"] for row in time["recordings"].values()]
    peaks = [row["peak_mib"]["median"] for row in memory["recordings"].values()]
    return (
        f"Measured on {time['date']}: a minute of audio takes {times[0]:.2f} s in a recording of 5 "
        f"minutes and {times[1]:.2f} s in one "
        f"of 60 (ratio {time['ratio']['median']:.2f}). Peak memory is {peaks[0]:.0f} MiB for 10 minutes and "
        f"{peaks[1]:.0f} MiB for 4 hours (ratio {memory['ratio']['median']:.2f})."
    )


def streaming_sentence() -> str:
    stored = load("streaming")
    total, rows = stored["total"], stored["recordings"]
    people = sorted(row["speakers"] for row in rows)
    return (
        f"Measured on {len(rows)} simulated meetings of {people[0]} to {people[-1]} people, with the embedded "
        f"checkpoint (`{stored['command']}`): {total['changed']} of {total['segments']} streamed segments have "
        f"another speaker among the final ones ({percent(stored['share'])}); of what the turns alone wrote "
        f"down, {total['turns_changed']}."
    )


def serve_sentence() -> str:
    stored = load("serve")
    many, killed = stored["many_clients"], stored["killed"]
    sent = sum(many["outcomes"].values())
    return (
        f"Measured on loopback on {stored['date']}: {stored['clients']} clients for {stored['seconds']:.0f} s got "
        f"{many['outcomes']['right']} of {sent} transcripts right, at {stored['throughput_ratio']:.1f} times "
        f"the throughput of one client; the server was killed {killed['kills']} times under load, and "
        f"{killed['outcomes']['right']} of {killed['accepted']} accepted jobs ended with the transcript that "
        "they would have had (`python benchmarks/serve.py`)."
    )


def stages_table() -> str:
    rows = []
    for row in load("stages")["rows"].values():
        names = ("wer", "cpwer", "der_025", "gender", "speaker_count")
        cells = [percent(rate(row["pieces"], name)) for name in names]
        cells += [percent(rate(row.get("whole", {}), name)) for name in ("cpwer", "der_025")]
        rows.append([row["title"], *cells])
    return table("|WER|cpWER|DER (0.25 s)|gender|count|whole: cpWER|whole: DER", rows)


def stages_intervals() -> str:
    stored = load("stages")
    rows = []
    for row in stored["rows"].values():
        low, high = row["pieces"]["intervals_95"]["cpwer"]
        rows.append([row["title"], f"{percent(low)} to {percent(high)}"])
    text = table("|95 % interval of cpWER", rows)
    paired = [
        f"{name}: {100 * row['cpwer_difference']:+.1f} points "
        f"({100 * row['interval_95'][0]:+.1f} to {100 * row['interval_95'][1]:+.1f})"
        for name, row in stored["paired"].items()
    ]
    return f"{text}\n\nDifferences over the same meetings: {'; '.join(paired)}."


def stages_groups() -> str:
    stored = load("stages")["rows"]
    rows = []
    for kind, metric in (
        ("speakers", "cpwer"),
        ("overlap", "cpwer"),
        ("turn_rate", "cpwer"),
        ("position", "wer"),
    ):
        for label in stored["base"]["pieces"]["subsets"][kind]:
            cells = [
                percent(rate(row["pieces"]["subsets"][kind][label], metric))
                for row in stored.values()
            ]
            what = {"turn_rate": "turns a minute"}.get(kind, kind)
            rows.append([f"{what}: {label} ({'WER' if metric == 'wer' else 'cpWER'})", *cells])
    return table("|" + "|".join(row["title"] for row in stored.values()), rows)


TABLES = {
    "serve-sentence": serve_sentence,
    "streaming-sentence": streaming_sentence,
    "constraint-sentence": constraint_sentence,
    "longform-table": longform_table,
    "longform-shipped-table": lambda: longform_table("longform-shipped"),
    "real-table": real_table,
    "real-sentence": real_sentence,
    "real-time": real_time,
    "real-memory": real_memory,
    "real-confidence": real_confidence,
    "steps-table": steps_table,
    "upstream-table": upstream_table,
    "linking-table": linking_table,
    "names-table": names_table,
    "cosines-table": cosines_table,
    "cache-table": cache_table,
    "scaling-sentence": scaling_sentence,
    "stages-table": stages_table,
    "stages-intervals": stages_intervals,
    "stages-groups": stages_groups,
    "scoring-sentence": scoring_sentence,
    "conventions": conventions_table,
    "embedded-evaluation": embedded_evaluation,
    "paper-tables": paper_tables,
    "other-figures": other_figures,
    "leaderboard-cost": leaderboard_cost,
    "embedded-sentence": embedded_sentence,
    "heldout-table": heldout_table,
    "witness-table": witness_table,
    "benchmark-table": benchmark_table,
    "domain-sentence": domain_sentence,
}


def filled(text: str) -> str:
    for name, render in TABLES.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if pattern.search(text):
            table = render()
            text = pattern.sub(lambda m, table=table: f"{m.group(1)}{table}\n{m.group(2)}", text)
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    stale = 0
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        new = filled(text)
        if new != text:
            stale += 1
            print(
                f"{path.relative_to(ROOT)}: {'is not' if arguments.check else 'now is'} what the results say"
            )
            if not arguments.check:
                path.write_text(new, encoding="utf-8")
    return 1 if stale and arguments.check else 0


if __name__ == "__main__":
    sys.exit(main())
