"""Batch runs: the model of many hours, memory by rows, workers that are killed: docs/scale.md."""

from typing import Any

from .stored import load, percent, table

_WHERE = {
    "storage": "the disk or bucket",
    "driver": "the driver",
    "longest_task": "the longest task",
    "start": "the start of workers",
}


def _span(seconds: float) -> str:
    hours = seconds / 3600
    if hours < 1:
        return f"{seconds / 60:.0f} min"
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} d"


def speed_list() -> str:
    stored = load("scale")
    each = {name: values["median"] for name, values in stored["each_s"].items()}
    start = {name: values["median"] for name, values in stored["start_s"].items()}
    faster, by_ray = stored["two_workers_times_faster"], stored["ray_over_plain"]
    same = "give the same bytes" if stored["same_tables_also_of_eight_shards"] else "differ"
    return (
        f"`{stored['command']}` on {stored['machine']['cores']} cores, one thread a process, {stored['date']} "
        f"([result](results/scale.json)): recordings of {stored['recording_s']:g} s on the embedded checkpoint. "
        "The start of engines and of Ray is not in the time of a recording.\n\n"
        f"- Two workers take {each['two workers']:.2f} s for a recording, one worker takes "
        f"{each['one worker']:.2f} s: {faster['median']:.2f} times as fast ({faster['min']:.2f} to "
        f"{faster['max']:.2f}).\n"
        f"- The plain run takes {each['plain']:.2f} s for a recording; one worker by Ray took "
        f"{by_ray['min']:.2f} to {by_ray['max']:.2f} of that. Its start takes {start['one worker']:.0f} s, that "
        f"of the plain run {start['plain']:.1f} s.\n"
        f"- One run, one worker, two workers and eight shards {same}."
    )


def model_sentence() -> str:
    stored = load("scale-model")
    one = next(iter(stored["engines"].values()))
    job, limits = one["job"], one["limits"]
    return (
        f"{job['hours']:,.0f} h of {limits['recordings']:,} recordings whose durations are log-normal "
        f"(median {job['median_min']:g} min, sigma {job['sigma']:g} of the logarithm, seed {job['seed']}), "
        f"one of {job['longest_h']:g} h among them and none longer, in shares of {job['share_s'] / 60:g} min. "
        f"Assumed: {job['mb_per_hour']:g} MB an hour of audio, {job['storage_mb_s']:,.0f} MB/s from the disk "
        f"or bucket for all, {job['start_s']:g} s until a worker has its engine, "
        f"{1000 * job['driver_s']:g} ms of the driver a task. Measured: FLAC is decoded "
        f"{job['decode_rate']:,.0f} times as fast as it lasts."
    )


def model_table() -> str:
    stored = load("scale-model")
    rows: list[list[str]] = []
    for name, one in stored["engines"].items():
        rate = stored["rates"][name]["rate"]
        for run, whole in zip(one["runs"], one["undivided"], strict=True):
            rows.append(
                [
                    f"{name}: {rate:.1f} times real time",
                    f"{run['workers']:,}",
                    _span(run["wall_s"]),
                    f"{run['worker_hours']:,.0f}",
                    percent(run["use"]),
                    _span(whole["wall_s"]),
                    f"{whole['worker_hours']:,.0f}",
                ]
            )
    head = "engine|workers|time|hours of workers|transcribing|undivided: time|hours of workers"
    return table(head, rows)


def model_limits() -> str:
    stored = load("scale-model")
    rows: list[list[str]] = []
    for name, one in stored["engines"].items():
        for kind, limits in (("shares", one["limits"]), ("undivided", one["limits_undivided"])):
            rows.append([f"{name}, {kind}", *(f"{limits[key]:,.0f}" for key in _WHERE)])
    return table("workers beyond which more gain nothing, by|" + "|".join(_WHERE.values()), rows)


def model_check() -> str:
    check = load("scale-model")["check"]

    def both(name: str) -> str:
        pair: dict[str, Any] = check["wall_over_one_process"][name]
        said, seen = pair["predicted"], pair["measured"]
        return (
            f"{name} take {said['median']:.2f} of its time by the model, {seen['median']:.2f} in fact "
            f"({seen['min']:.2f} to {seen['max']:.2f})"
        )

    lengths = check["recordings_s"]
    return (
        f"Checked on {len(lengths)} recordings of {min(lengths):g} to {max(lengths):g} s, embedded "
        f"checkpoint, {len(check['runs'])} repeats, at a load of "
        f"{check['load'][0]:.1f}: against one process, {both('two processes')}, and "
        f"{both('eight shards')}, one after the other. The model is given the time of one process and its "
        f"start, and that two processes on two cores are {check['two_at_once_times_faster']:.2f} times as fast "
        "as one (`scale.json`)."
    )


def rows_sentence() -> str:
    stored = load("rows")

    def peaks(name: str) -> str:
        runs = stored["runs"][name]
        sizes = sorted(runs, key=int)
        each = ", ".join(f"{runs[n]['peak_kib'] / 1024:.0f} MiB with {int(n):,}" for n in sizes)
        return f"{name}: {each}, {stored['bytes_per_row'][name]:,} bytes a row"

    return (
        "The driver's peak memory by the number of recordings, which a simulated engine transcribes: "
        f"{'; '.join(map(peaks, stored['runs']))} (`{stored['command']}`, {stored['date']})."
    )


def survival_sentence() -> str:
    stored = load("survival")
    return (
        f"{stored['recordings']:,} short recordings and one of {stored['long_recording_h']:g} h, two workers "
        f"on a local Ray cluster, of which one was killed at random {len(stored['kills'])} times, with a "
        f"simulated engine (`{stored['command']}`, {stored['date']}): "
        f"{stored['files_compared']:,} files compared with those of one process that was left alone, "
        f"{len(stored['files_that_differ'])} differ."
    )


BLOCKS = {
    "scale-speed": speed_list,
    "scale-model-sentence": model_sentence,
    "scale-model-table": model_table,
    "scale-model-limits": model_limits,
    "scale-model-check": model_check,
    "scale-rows": rows_sentence,
    "scale-survival": survival_sentence,
}
