"""Accuracy and speed of the embedded checkpoint: docs/embedded.md, docs/speed.md, docs/engines.md, its model card."""

from .stored import load, percent, table


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


def domain_sentence() -> str:
    result = load("heldout-assembled")["foreign"]
    return (
        f"Measured: the warning came on {result['foreign_warned']} of {result['foreign']} recordings of "
        f"real or neural voices, and stayed away on {result['held_out_not_warned']} of "
        f"{result['held_out']} held-out meetings (floor {result['floor']:.2f})."
    )


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


def products_line() -> str:
    stored = load("products")
    parts = [
        f"{row['rows']} {'row' if row['rows'] == 1 else 'rows'} {row['times_faster']['median']:.1f}"
        for row in stored["products"]
    ]
    machine = stored["machine"]["processor"]
    return (
        f"Products of the embedded checkpoint's shapes, one thread of an {machine}, times faster than torch's "
        f"own: {', '.join(parts)} (`python benchmarks/products.py`)."
    )


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


BLOCKS = {
    "constraint-sentence": constraint_sentence,
    "steps-table": steps_table,
    "upstream-table": upstream_table,
    "products-line": products_line,
    "embedded-sentence": embedded_sentence,
    "heldout-table": heldout_table,
    "witness-table": witness_table,
    "benchmark-table": benchmark_table,
    "domain-sentence": domain_sentence,
}
