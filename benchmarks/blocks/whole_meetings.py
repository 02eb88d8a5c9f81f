"""Linking of speakers across chunks, and cost by length: docs/whole-meetings.md."""

from .stored import load, percent, rate, table


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


BLOCKS = {
    "longform-table": longform_table,
    "longform-shipped-table": lambda: longform_table("longform-shipped"),
    "linking-table": linking_table,
    "names-table": names_table,
    "cosines-table": cosines_table,
    "cache-table": cache_table,
    "scaling-sentence": scaling_sentence,
}
