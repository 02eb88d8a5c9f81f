"""Cost of a regular expression as a constraint, in requests: repeated turns, against two requests for a span.

    python benchmarks/constraint.py [--count 30] [RECORDING ...]

The embedded checkpoint writes turns constrained by the expression alone (llguidance, token by token), as it would
on a server; what an expression cannot say is checked and asked for again, as the remote engine does. Two requests
for every span, the alternative, would take a request more for each span that was written. Held-out meetings are
of the checkpoint's domain; recordings that are not show what a model does that is unsure.
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import llguidance
import numpy as np
from rich.console import Console
from rich.progress import track

from common import store
from heldout_set import held_out
from speaker_reasoner import load_engine
from speaker_reasoner.audio import load
from speaker_reasoner.engines import Request, Session
from speaker_reasoner.engines.chat import Completion
from speaker_reasoner.engines.client import Address, Client
from speaker_reasoner.engines.local import TransformersEngine
from speaker_reasoner.engines.remote import RemoteEngine
from speaker_reasoner.protocol.checking import is_turn
from speaker_reasoner.protocol.expression import turn_regex
from speaker_reasoner.reasoner import Dialogue, run

BYTES = llguidance.LLTokenizer("byte")


class Expressed(TransformersEngine):
    """Chooses the best token that an expression allows."""

    expression = ""

    def _row(self, request: Request) -> Any:
        grammar = llguidance.grammar_from("regex", self.expression)
        self.matcher = llguidance.LLMatcher(BYTES, grammar)
        return super()._row(request)

    def _pick(self, row: Any, logits: np.ndarray[Any, Any]) -> int:
        for i in np.argsort(-logits):
            data = self.vocabulary.tokens[int(i)]
            if int(i) == self.end_id and self.matcher.is_accepting():
                return int(i)
            if not data:
                continue
            taken = self.matcher.try_consume_tokens(list(data))
            if taken == len(data):
                return int(i)
            self.matcher.rollback(taken)
        raise AssertionError("no token fits the expression")


class Measured(RemoteEngine):
    """The remote engine over such an engine in this process; counts."""

    def __init__(self, local: Expressed) -> None:
        client = Client(Address("http://localhost:1/v1"))
        super().__init__(client, "m", local.profile, constraint="regex")
        self.local = local
        self.counts: Counter[str] = Counter()

    async def _complete(
        self, request: Request, memory: Any, chat: Any, kept: str, asked: int
    ) -> Completion:
        self.local.expression = turn_regex(request.rules, kept)
        session = Session(request.session.samples, request.session.cached)
        whole = Request(session, tuple(memory.parts), request.rules)
        [reply] = self.local.ask([whole])
        self.counts["requests"] += 1
        self.counts["turns"] += asked == 0
        self.counts["turns_asked_again"] += asked == 1
        if is_turn(request.rules, reply.text):
            self.counts["valid_turns"] += 1
            self.counts["spans"] += reply.text.count("[")
        return Completion(reply.text, self.model, reply.sizes, reply.probabilities, len(reply.ids))


def measure(engine: Measured, recordings: Sequence[Any], name: str) -> dict[str, Any]:
    engine.counts.clear()
    longest = round(engine.profile.chunk_s * 16_000)
    for samples in track(recordings, description=name):
        for _ in run([Dialogue(samples[:longest], engine.profile)], engine):
            pass
    counts = dict(engine.counts)
    counts["requests_with_two_for_each_span"] = counts["turns"] + counts.get("spans", 0)
    return {"recordings": len(recordings), **counts}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=30, help="held-out meetings")
    parser.add_argument("--banks", type=Path, default=Path("runs/banks"), help="kept voice banks")
    parser.add_argument("recordings", nargs="*", type=Path, help="of another domain")
    arguments = parser.parse_args()
    checkpoint = load_engine("tiny").checkpoint  # type: ignore[attr-defined]
    engine = Measured(Expressed(checkpoint, constrained=False, lookahead=0))
    meetings = held_out(arguments.banks, arguments.count)
    rows = {"held-out": measure(engine, [one.meeting.samples for one in meetings], "held-out")}
    if arguments.recordings:
        rows["foreign"] = measure(engine, [load(path) for path in arguments.recordings], "foreign")
    engine.client.close()
    for name, row in rows.items():
        Console().print(name, row)
    print(store("constraint", {"sets": rows}))


if __name__ == "__main__":
    main()
