"""The server under load and faults, streamed segments: docs/server.md; several servers: docs/servers.md."""

from .stored import load, percent


def serve_sentence() -> str:
    stored = load("serve")
    many, killed = stored["many_clients"], stored["killed"]
    sent = sum(many["outcomes"].values())
    return (
        f"Measured on loopback on {stored['date']}: {stored['clients']} clients for {stored['seconds']:.0f} s got "
        f"{many['outcomes']['right']} of {sent} transcripts right, at {stored['throughput_ratio']:.1f} times "
        f"the throughput of one client; the server was killed {killed['kills']} times under load, and "
        f"{killed['outcomes']['right']} of {killed['accepted']} accepted jobs ended with the transcript that "
        f"they would have had (`{stored['command']}`)."
    )


def serve_cascade_sentence() -> str:
    stored = load("serve-cascade")
    one, many, killed = stored["one_client"], stored["many_clients"], stored["killed"]
    right = many["outcomes"]["right"]
    return (
        f"With real speech, measured on {stored['date']} on two cores: {stored['clients']} clients, which sent "
        f"stretches of 4 s each, got {right} of {sum(many['outcomes'].values())} transcripts right, "
        f"{many['audio_s_per_s']:.1f} s of audio a second; one client got {one['audio_s_per_s']:.1f}, because Whisper "
        f"computes 30 s for each and uses all cores already. {killed['outcomes']['right']} of {killed['accepted']} "
        f"jobs ended as they would have after {killed['kills']} kills (`{stored['command']}`)."
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


def servers_sentence() -> str:
    stored = load("servers")
    fronts, full = stored["runs"]
    sentences = []
    for run, kind in ((fronts, "a front and two workers"), (full, "three full servers")):
        sentences.append(
            f"{run['kills']} kills among {kind}: {run['ended_once_with_the_same_transcript']} of "
            f"{run['accepted']} accepted jobs ended once, with the transcript that one process makes; "
            f"{run['taken_over']} were given to more than one server"
        )
    return f"Measured on {stored['date']}, leases of {stored['lease_s']} s, turns of 50 ms. {'. '.join(sentences)}."


def faults_sentence() -> str:
    stored = load("faults")
    faults, checked = stored["faults"], stored["checked"]
    outages = sum(count for name, count in faults.items() if name.startswith("outages"))
    kinds = sorted(name.removeprefix("outages of the ") for name in faults if name != "kills")
    return (
        f"Measured on {stored['date']}, two processes on {stored['database']}, beside other work on the machine "
        f"(`{stored['command']}`): {faults['kills']} kills and {outages} outages ({', '.join(kinds)}) under load; "
        f"of {checked['jobs']} accepted jobs, {checked['corrections']} acknowledged corrections and "
        f"{checked['live sessions']} live sessions, {stored['wrong']} did not end as it should have."
    )


def opening_sentence() -> str:
    stored = load("opening")

    def of(what: str, name: str) -> str:
        one = stored[what]
        new, old, ratio = one["new_ms"], one["old_ms"], one["ratio"]
        return (
            f"{name} ({one['lines']['new']:,} lines) shows its first line {new['median']:.0f} ms after the "
            f"navigation began ({new['min']:.0f} to {new['max']:.0f}; before: {old['median']:.0f}; ratio of "
            f"pairs {ratio['median']:.2f}, {ratio['min']:.2f} to {ratio['max']:.2f})"
        )

    long = f"one of {stored['hours']:g} hours"
    return (
        f"Measured on {stored['date']} in turns with the build of {stored['old_commit']}, "
        f"{stored['long']['times']} times each, in Chromium on two cores that others used, too (load "
        f"{stored['load'][0]:.1f}; `{stored['command']}`): "
        f"{of('ten minutes', 'a recording of ten minutes')}; {of('long', long)}."
    )


BLOCKS = {
    "opening-sentence": opening_sentence,
    "servers-sentence": servers_sentence,
    "faults-sentence": faults_sentence,
    "serve-sentence": serve_sentence,
    "serve-cascade-sentence": serve_cascade_sentence,
    "streaming-sentence": streaming_sentence,
}
