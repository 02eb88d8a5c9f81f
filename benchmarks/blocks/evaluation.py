"""Definitions, published figures and costs of scoring: docs/evaluation.md."""

from .stored import load, percent


def conventions_table() -> str:
    from speaker_reasoner.evaluate import CONVENTIONS
    from speaker_reasoner.evaluate.breakdown import CONVENTIONS as GROUPS

    rows = ["| key | definition |", "|---|---|"]
    rows += [f"| `{name}` | {text} |" for name, text in {**CONVENTIONS, **GROUPS}.items()]
    return "\n".join(rows)


def scoring_sentence() -> str:
    stored = load("scoring")
    return (
        f"Scoring {stored['recordings']} meetings of {stored['data']} ({stored['segments']:,} segments, "
        f"copies with planted errors) with every metric and subset takes {stored['score_s']['median']:.0f} s on "
        f"{stored['machine']['cores']} cores; reading and scoring take {stored['share_of_time']['median']:.2f} of "
        f"the time of commit {stored['other']['commit']}, and {stored['share_of_cpu']['median']:.2f} of its processor "
        f"time (medians of {stored['rounds']} rounds in turns; `{stored['command']}`)."
    )


def agreement() -> str:
    """Return whether other tools count the same."""
    stored = load("agreement")
    rows = ["| time | md-eval | pyannote.metrics |", "|---|--:|--:|"]
    for case in stored["time"]:
        off = [f"{case[f'{tool}_differs_s']:.3f} s" for tool in ("md_eval", "pyannote")]
        rows.append(f"| {case['case']} ({case['ours_s']['scored']:,.0f} s) | {' | '.join(off)} |")
    rows += ["", "| words | errors | sclite's | segments with other errors |", "|---|--:|--:|--:|"]
    kinds = ("insertions", "deletions", "substitutions")
    for case in stored["words"]:
        sums = [f"{sum(case[side][kind] for kind in kinds):,}" for side in ("ours", "sclite")]
        differ = f"{case['segments_with_other_errors']} of {case['segments']:,}"
        rows.append(f"| {case['case']} | {' | '.join(sums)} | {differ} |")
    ours, theirs = stored["speakers"]["ours"], stored["speakers"]["meeteval"]
    same = [name for name in ours if ours[name] == theirs[name]]
    return "\n".join(
        [
            f"Against other tools on {stored['recordings']} meetings of {stored['data']}, copies with planted errors "
            f"(`{stored['command']}`): the largest difference in seconds of speech, missed, false or confused; and the "
            f"errors of words. MeetEval's command line counts the same {', '.join(same) or 'in none'}.",
            "",
            *rows,
        ]
    )


def leaderboard_cost() -> str:
    stored = load("leaderboard-time")
    return (
        f"To score its {stored['results']} results takes {stored['scoring_s']:.2f} s, to compare them and write the "
        f"page {stored['leaderboard_s']:.2f} s, and to write it again, nothing having changed, "
        f"{1000 * stored['leaderboard_again_s']:.0f} ms "
        f"(`{stored['command']}`; in one process, without the start of Python)."
    )


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


BLOCKS = {
    "scoring-sentence": scoring_sentence,
    "agreement": agreement,
    "conventions": conventions_table,
    "embedded-evaluation": embedded_evaluation,
    "paper-tables": paper_tables,
    "other-figures": other_figures,
    "leaderboard-cost": leaderboard_cost,
}
