"""The cascade on real recordings: docs/real-speech.md."""

from .stored import load, percent, table


def real_table() -> str:
    rows = []
    for row in load("real")["rows"]:
        hint = f", with `--speakers {row['speakers_given']}`" if row["speakers_given"] else ""
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
    mandarin = rows["mandarin_single.wav"]["wer"]
    silent = sum(row["words"] == 0 for row in stored["silence"])
    return (
        f"Measured on two cores: cpWER {percent(podcast['cpwer'])} on a podcast of "
        f"{podcast['reference_speakers']} ({podcast['speakers']} found) and {percent(call['cpwer'])} on a "
        f"telephone call ({call['speakers']} of {call['reference_speakers']} found), both without a hint; in "
        f"{len(ami)} half-minute clips of AMI's far-field microphone a mean DER of {percent(mean)} and the "
        f"right number of speakers in {right}; one sentence of Mandarin with {percent(mandarin)} of its characters "
        f"wrong; no words in {silent} of {len(stored['silence'])} recordings "
        "without speech (`python benchmarks/real.py`; settings were chosen on four of these clips)."
    )


def real_time() -> str:
    rows, stored = load("real")["rows"], load("real")["time"]
    clip_s = next(row["duration_s"] for row in rows if row["clip"] == stored["clip"])
    return (
        f"On the podcast ({clip_s:.0f} s), paired in one process, {stored['rounds']} rounds: the whole cascade takes "
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
    once = [row for row in stored["rows"] if row["speakers_given"] is None]
    genders = [row["gender"] for row in once if "gender" in row]
    right, total = (sum(g[key] for g in genders) for key in ("right", "total"))
    return (
        table(
            "confidence in the speaker|segments|length|mean confidence|share of it that is right",
            rows,
        )
        + f"\n\nGender is right in {right} of {total} reference segments whose gender is known; segments that were "
        "not found or whose gender was left open count as wrong."
    )


BLOCKS = {
    "real-table": real_table,
    "real-sentence": real_sentence,
    "real-time": real_time,
    "real-memory": real_memory,
    "real-confidence": real_confidence,
}
