"""Drafts cost no token: whatever is proposed, the same ids are written with the same probabilities."""

import random
import re
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from speaker_reasoner import load_engine
from speaker_reasoner.engines.attention import grouped_attention
from speaker_reasoner.engines.base import Reply
from speaker_reasoner.engines.local import TransformersEngine
from speaker_reasoner.engines.lookahead import Lookahead, TokenHistory, forced
from speaker_reasoner.engines.thinker import text_model
from speaker_reasoner.protocol.grammar import start
from speaker_reasoner.protocol.matcher import State, advance, complete, next_bytes
from speaker_reasoner.reasoner import Dialogue, run
from speaker_reasoner.train import scratch

from .conftest import TINY, noise
from .test_checkpoint import spread
from .test_grammar import random_rules


def replies(engine: TransformersEngine, clips: list[Any], **options: Any) -> list[list[Reply]]:
    """All replies of the dialogues of some clips, in one batch."""
    dialogues = [Dialogue(clip, engine.profile, **options) for clip in clips]
    written: dict[int, list[Reply]] = {id(d.session): [] for d in dialogues}
    ask = engine.ask

    def watched(requests: Any) -> list[Reply]:
        out = ask(requests)
        for request, reply in zip(requests, out, strict=True):
            written[id(request.session)].append(reply)
        return out

    engine.ask = watched  # type: ignore[method-assign]
    try:
        for _ in run(dialogues, engine):
            pass
    finally:
        engine.ask = ask  # type: ignore[method-assign]
    return list(written.values())


def assert_same(one: list[list[Reply]], other: list[list[Reply]]) -> None:
    for a, b in zip(chain(*one), chain(*other), strict=True):
        assert a.ids == b.ids and a.text == b.text
        assert np.allclose(a.probabilities, b.probabilities, rtol=0, atol=1e-5)


PROFILES = {
    "native": {},
    "milliseconds": {"decimals": 3},
    "hundredths": {"decimals": 2, "language": "zh"},
    "released": {"name": "released", "decimals": 2},
}


@pytest.mark.no_cover
@pytest.mark.parametrize("answer", ["assembled", "model"])
@pytest.mark.parametrize("name", PROFILES)
def test_the_same_tokens_as_one_by_one(random_checkpoint: Path, name: str, answer: str) -> None:
    checkpoint = load_engine(random_checkpoint, device="cpu").checkpoint
    checkpoint = replace(checkpoint, profile=replace(checkpoint.profile, **PROFILES[name]))
    clips = [noise(seconds, i) for i, seconds in enumerate((6.3, 0.6, 8.0))]
    one_by_one = TransformersEngine(checkpoint, lookahead=0, max_new_tokens=150)
    expected = replies(one_by_one, clips, answer=answer)
    assert_same(expected, [replies(one_by_one, [clip], answer=answer)[0] for clip in clips])
    for longest in (1, 32):
        engine = TransformersEngine(checkpoint, lookahead=longest, max_new_tokens=150)
        assert_same(replies(engine, clips, answer=answer), expected)


def merging_tokenizer(seed: int, vocabulary: int, monkeypatch: pytest.MonkeyPatch) -> Any:
    """One whose tokens hold whatever its texts repeat within a line: what the grammar spells with what it leaves
    free, such as ` the` after a line's colon, or `: t`."""
    rng = random.Random(seed)
    words = ["the", "red", "dog", "sees", "a", "cat", "2", "13", "yes"]
    texts = ["user\n", "assistant\n", "system\n"] * 200  # marks of a chat are single tokens
    for _ in range(60):
        a, b = sorted(round(rng.uniform(0, 20), 1) for _ in range(2))
        who = f"Speaker{rng.randint(1, 4)}-{rng.choice(['male', 'female', 'unknown'])}"
        said = " ".join(rng.choices(words, k=rng.randint(1, 9)))
        texts += [
            f"{who} [{a}, {b}]: {said}\n",
            f"[{a}, {b}] {said}",
            f"{rng.randint(1, 4)} speakers: {who}\n",
        ]
    with monkeypatch.context() as patch:
        patch.setattr(scratch, "_SPLIT", r"[^\n]+|\n")
        return scratch.make_tokenizer(texts, vocabulary)


@pytest.mark.no_cover
@pytest.mark.parametrize(("seed", "vocabulary"), [(0, 600), (1, 600), (2, 900)])
def test_the_same_tokens_with_merges_across_the_seam(
    random_checkpoint: Path, seed: int, vocabulary: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tokens that begin in what the grammar forces and end in what is free."""
    tokenizer = merging_tokenizer(seed, vocabulary, monkeypatch)
    torch.manual_seed(seed)
    checkpoint = replace(
        load_engine(random_checkpoint, device="cpu").checkpoint,
        thinker=spread(scratch.make_thinker(tokenizer, TINY)),
        tokenizer=tokenizer,
    )
    clips = [noise(seconds, i) for i, seconds in enumerate((6.3, 2.2))]
    engines = [TransformersEngine(checkpoint, lookahead=n, max_new_tokens=120) for n in (0, 32)]
    tokens = [data or b"" for data in engines[0].vocabulary.tokens]
    across = {i for i, data in enumerate(tokens) if re.search(rb"[\]:] [a-z0-9]", data)}
    for answer in ("assembled", "model"):
        one, other = (replies(engine, clips, answer=answer) for engine in engines)
        assert_same(one, other)
        assert any(across.intersection(reply.ids) for reply in chain(*other))


def test_a_turn_that_is_cut_is_cut_at_the_same_token(random_checkpoint: Path) -> None:
    checkpoint = load_engine(random_checkpoint, device="cpu").checkpoint
    for most in (1, 2, 7, 19):
        engines = [
            TransformersEngine(checkpoint, max_new_tokens=most, lookahead=n) for n in (0, 32)
        ]
        one, other = (replies(engine, [noise(5.0)]) for engine in engines)
        assert_same(one, other)
        assert all(len(reply.ids) <= most for reply in other[0])


class Guesses(Lookahead):
    """Proposes tokens at random: allowed ones, forbidden ones, right ones."""

    def __init__(self, vocabulary: Any) -> None:
        self.rng = random.Random(0)
        self.known = [i for i, data in enumerate(vocabulary.tokens) if data]
        self.vocabulary = vocabulary

    def note(self, history: TokenHistory, token: int) -> None:
        history.ids.append(token)

    def expect_answer(self, history: TokenHistory) -> None:
        pass

    def draft(self, state: State, history: TokenHistory, longest: int) -> list[int]:
        if self.rng.random() < 0.3:
            return []
        draft = []
        for byte in next_bytes(state)[:1]:
            draft = [i for i in self.known if self.vocabulary.tokens[i] == bytes((byte,))][:1]
        return draft + self.rng.choices(self.known, k=self.rng.randrange(4))


def test_wrong_drafts_cost_nothing_but_time(random_checkpoint: Path) -> None:
    checkpoint = load_engine(random_checkpoint, device="cpu").checkpoint
    clips = [noise(seconds, i) for i, seconds in enumerate((4.0, 7.7))]
    expected = replies(TransformersEngine(checkpoint, lookahead=0), clips, answer="model")
    engine = TransformersEngine(checkpoint)
    engine.lookahead = Guesses(engine.vocabulary)
    assert_same(replies(engine, clips, answer="model"), expected)


def steps(engine: TransformersEngine, samples: Any, monkeypatch: Any, **options: Any) -> float:
    """Forwards of the text model for each token that is written."""
    count = 0
    read = engine.text.read

    def counted(*arguments: Any) -> Any:
        nonlocal count
        count += 1
        return read(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(engine.text, "read", counted)
        [written] = replies(engine, [samples], **options)
    return count / sum(len(reply.ids) for reply in written)


def test_half_of_the_forwards(monkeypatch: pytest.MonkeyPatch) -> None:
    from speaker_reasoner import audio

    example = audio.load(Path(__file__).parent.parent / "examples" / "meeting.flac")
    checkpoint = load_engine("tiny", device="cpu").checkpoint
    one_by_one = TransformersEngine(checkpoint, lookahead=0)
    assert steps(one_by_one, example, monkeypatch) >= 1
    engine = TransformersEngine(checkpoint)
    assert steps(engine, example, monkeypatch) <= 0.55
    assert steps(engine, example, monkeypatch, answer="model") <= 0.45


@pytest.mark.parametrize("seed", range(20))
def test_forced_bytes_are_forced(seed: int) -> None:
    """At each of them nothing else may follow, and the turn may not end."""
    rng = random.Random(seed)
    state = start(random_rules(rng))
    forced_bytes = 0
    for _ in range(400):
        data, after = forced(state)
        forced_bytes += len(data)
        for byte in data:
            assert next_bytes(state) == [byte] and not complete(state)
            state = advance(state, bytes((byte,)))
        assert next_bytes(state) == next_bytes(after)
        following = next_bytes(state)
        if not following:
            break
        state = advance(state, bytes((rng.choice(following),)))
    assert forced_bytes


def test_a_long_draft_is_cut(random_engine: Any) -> None:
    lookahead = Lookahead(random_engine.vocabulary, random_engine.checkpoint.tokenizer)
    state = start(random_rules(random.Random(1)))
    whole = lookahead.draft(state, TokenHistory(), 32)
    assert len(whole) > 1 and lookahead.draft(state, TokenHistory(), 1) == whole[:1]


@pytest.mark.parametrize("tokens", [1, 5])
def test_grouped_attention_is_transformers_own(random_engine: Any, tokens: int) -> None:
    """The same hidden states, with and without padding; and the model is left as it was."""
    model = text_model(random_engine.thinker)
    config = random_engine.thinker.config.get_text_config()
    assert config.num_attention_heads > config.num_key_value_heads
    torch.manual_seed(0)
    inputs = torch.randn(2, 9, config.hidden_size)
    for padding in (0, 3):
        mask = torch.ones(2, 9, dtype=torch.long)
        mask[1, :padding] = 0
        outputs = []
        for grouped in (True, False):
            cache = None
            with torch.inference_mode():
                for part in (slice(0, 9 - tokens), slice(9 - tokens, 9)):
                    arguments = {
                        "inputs_embeds": inputs[:, part],
                        "attention_mask": mask[:, : part.stop],
                        "position_ids": torch.arange(9)[part].expand(3, 2, -1),
                        "past_key_values": cache,
                        "use_cache": True,
                    }
                    if grouped:
                        with grouped_attention(model):
                            assert model.config._attn_implementation != "sdpa"
                            output = model(**arguments)
                    else:
                        output = model(**arguments)
                    cache = output.past_key_values
            outputs.append(output.last_hidden_state[:, -tokens:])
        assert torch.allclose(outputs[0], outputs[1], atol=1e-5)
        assert model.config._attn_implementation == "sdpa"
