"""Stages of training compared: docs/stages.md."""

from .stored import load, percent, rate, table


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


BLOCKS = {
    "stages-table": stages_table,
    "stages-intervals": stages_intervals,
    "stages-groups": stages_groups,
}
