"""The engine on transformers: kept caches, batches, constrained turns, loading."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from speaker_reasoner import load_engine
from speaker_reasoner.engines import Request
from speaker_reasoner.engines.checkpoint import load_checkpoint
from speaker_reasoner.engines.local import TransformersEngine
from speaker_reasoner.engines.memory import KeysValues, join, take_apart
from speaker_reasoner.protocol.grammar import start
from speaker_reasoner.protocol.matcher import advance, complete
from speaker_reasoner.reasoner import Dialogue, Stop, ask, run

from .conftest import draw_seconds, noise


def transcripts(engine: Any, clips: list[Any], **options: Any) -> list[list[str]]:
    """The turns of one dialogue for each clip, all in one batch."""
    dialogues = [Dialogue(clip, engine.profile, **options) for clip in clips]
    for _ in run(dialogues, engine):
        pass
    return [[answer.text for answer in d.outcome.trace.answers] for d in dialogues if d.outcome]


@pytest.mark.parametrize("count", [40, pytest.param(200, marks=pytest.mark.slow)])
def test_random_model_never_malformed(random_engine: Any, count: int) -> None:
    """Dialogues with a model that left alone writes garbage: all well-formed, all finished."""
    rng = random.Random(0)
    clips = [noise(draw_seconds(rng), seed) for seed in range(count)]
    for first in range(0, len(clips), 25):
        dialogues = [Dialogue(clip, random_engine.profile) for clip in clips[first : first + 25]]
        for dialogue, event in run(dialogues, random_engine):
            for one in event.lines:
                line = one.line
                assert 0 <= line.start < line.end <= max(dialogue.chunk, 1)
        for dialogue in dialogues:
            assert dialogue.outcome is not None
            assert dialogue.outcome.stop in (Stop.ANSWERED, Stop.TURN_LIMIT), (
                dialogue.outcome.detail
            )


def test_left_alone_it_writes_garbage(random_checkpoint: Path) -> None:
    """The test above could fail: without the grammar the same model breaks the protocol at once."""
    engine = load_engine(random_checkpoint, device="cpu")
    engine.constrained, engine.max_new_tokens = False, 32
    dialogue = Dialogue(noise(3.0), engine.profile)
    for _ in run([dialogue], engine):
        pass
    assert dialogue.outcome is not None and dialogue.outcome.stop is Stop.MALFORMED
    assert dialogue.outcome.missing is not None


def test_batch_equals_single(random_engine: Any) -> None:
    clips = [noise(seconds, i) for i, seconds in enumerate((5.0, 0.4, 12.3, 1.0, 8.7))]
    together = transcripts(random_engine, clips)
    alone = [transcripts(random_engine, [clip])[0] for clip in clips]
    assert together == alone


def test_who_joins_late_changes_nothing(random_engine: Any) -> None:
    """Dialogues at different turns share a batch: whole chunks and short slices are read in one."""
    clips = [noise(seconds, i) for i, seconds in enumerate((15.0, 6.0, 19.0, 0.7))]
    alone = [transcripts(random_engine, [clip])[0] for clip in clips]
    dialogues: list[Dialogue] = []
    for clip in clips:
        dialogues.append(Dialogue(clip, random_engine.profile))
        for _ in ask(dialogues, random_engine):
            pass
    for _ in run(dialogues, random_engine):
        pass
    late = [[answer.text for answer in d.outcome.trace.answers] for d in dialogues if d.outcome]
    assert late == alone


def test_keys_survive_joining_growth_and_taking_apart() -> None:
    """Rows of different lengths, padded left, grow beyond the room of a batch and come back whole."""
    torch.manual_seed(0)

    def keys(tokens: int) -> KeysValues:
        return [(torch.randn(1, 2, tokens, 4), torch.randn(1, 2, tokens, 4)) for _ in range(3)]

    rows: list[KeysValues] = [keys(5), [], keys(9)]
    given = [list(row) for row in rows]
    cache = join(given, 9)
    assert given == [[], [], []]  # nothing is held twice
    mask = torch.tensor([[0] * 4 + [1] * 5, [0] * 9, [1] * 9])
    written = [keys(1) for _ in range(150)]
    for new in written:
        for layer, (key, value) in enumerate(new):
            held, _ = cache.update(key.expand(3, -1, -1, -1), value.expand(3, -1, -1, -1), layer)
        mask = torch.cat([mask, torch.tensor([[1], [1], [0]])], dim=1)
    assert held.shape[2] == cache.get_seq_length() == 159
    apart = take_apart(cache, mask)
    assert not cache.layers
    for row, own, grows in zip(rows, apart, (True, True, False), strict=True):
        for layer, cached in enumerate(own):
            for kind in (0, 1):
                parts = [row[layer][kind]] if row else []
                parts += [new[layer][kind] for new in written] if grows else []
                assert torch.equal(cached[kind], torch.cat(parts, dim=2))


def test_cached_equals_recomputed(random_checkpoint: Path) -> None:
    kept = load_engine(random_checkpoint, device="cpu")
    anew = TransformersEngine(kept.checkpoint, keep_cache=False)
    clips = [noise(9.0, 1), noise(3.2, 2)]
    assert transcripts(kept, clips, answer="model") == transcripts(anew, clips, answer="model")


def test_cached_logits_equal_recomputed(random_checkpoint: Path, monkeypatch: Any) -> None:
    """Within 1e-4 in float32, at every step of every turn."""
    kept = load_engine(random_checkpoint, device="cpu")
    anew = TransformersEngine(kept.checkpoint, keep_cache=False)
    seen: dict[str, list[Any]] = {"kept": [], "anew": []}
    for name, engine in (("kept", kept), ("anew", anew)):
        read = engine.text.read

        def watched(*arguments: Any, read: Any = read, name: str = name) -> Any:
            logits = read(*arguments)
            seen[name] += logits
            return logits

        monkeypatch.setattr(engine.text, "read", watched)
        transcripts(engine, [noise(7.0, 3)])
    assert len(seen["kept"]) == len(seen["anew"]) > 20
    worst = max(float((a - b).abs().max()) for a, b in zip(seen["kept"], seen["anew"], strict=True))
    assert worst < 1e-4


def test_positions_equal_the_models_own(random_engine: Any) -> None:
    """Our explicit positions are what the model would compute for an audio prompt."""
    thinker = random_engine.thinker
    ids = [5, thinker.config.audio_start_token_id, *[random_engine.audio_id] * 26]
    ids += [thinker.config.audio_end_token_id, 7, 8]
    rope, _ = thinker.get_rope_index(
        torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        audio_seqlens=torch.tensor([200]),
    )
    assert torch.equal(rope.long(), torch.arange(len(ids)).expand(3, 1, -1))


def test_same_tokens_as_generate(random_engine: Any) -> None:
    """The first turn, unconstrained, equals transformers' own generate over the whole prompt."""
    engine = TransformersEngine(random_engine.checkpoint, constrained=False, max_new_tokens=12)
    clip = noise(2.0, 5)
    dialogue = Dialogue(clip, engine.profile)
    request = dialogue.request
    assert request is not None
    [reply] = engine.ask([request])
    from speaker_reasoner.engines.thinker import log_mel
    from speaker_reasoner.protocol import pieces

    features, mask = log_mel(engine.checkpoint.extractor, [clip])
    ids: list[int] = []
    for piece in pieces(request.parts, engine.checkpoint.tokenizer, engine.end_id):
        ids += [engine.audio_id] * 26 if piece.audio else piece.ids
    special = [i for i, data in enumerate(engine.vocabulary.tokens) if data is None]
    out = engine.thinker.generate(
        input_ids=torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        input_features=features,
        feature_attention_mask=mask,
        max_new_tokens=12,
        do_sample=False,
        suppress_tokens=[i for i in special if i != engine.end_id],
        eos_token_id=engine.end_id,
        pad_token_id=engine.checkpoint.tokenizer.pad_token_id,
    )
    generated = [i for i in out[0, len(ids) :].tolist() if i != engine.end_id]
    assert generated[: len(reply.ids)] == list(reply.ids)


def test_short_slices_encode_alike_alone_and_in_a_batch(random_engine: Any) -> None:
    from speaker_reasoner.engines.thinker import encode_audio, log_mel

    clips = [noise(s, i) for i, s in enumerate((0.1, 0.7, 3.3, 1.0))]
    extractor, thinker = random_engine.checkpoint.extractor, random_engine.thinker
    with torch.inference_mode():
        together = encode_audio(thinker, *log_mel(extractor, clips))
        alone = [encode_audio(thinker, *log_mel(extractor, [clip]))[0] for clip in clips]
    for a, b in zip(together, alone, strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_placeholders_are_never_generated(random_engine: Any) -> None:
    tokens = random_engine.vocabulary.tokens
    for special in ("<|audio_pad|>", "<|im_start|>", "<|endoftext|>", "<|image_pad|>"):
        assert tokens[random_engine.checkpoint.tokenizer.convert_tokens_to_ids(special)] is None


def test_confidences_are_reported(random_engine: Any) -> None:
    dialogue = Dialogue(noise(4.0, 9), random_engine.profile)
    lines = [h for _, event in run([dialogue], random_engine) for h in event.lines]
    assert lines
    for one in lines:
        assert one.confidence.speaker is not None and 0 < one.confidence.speaker <= 1
        assert one.confidence.times is not None and 0 < one.confidence.times <= 1


def test_outgrown_context_is_a_reason(random_checkpoint: Path) -> None:
    engine = load_engine(random_checkpoint, device="cpu")
    engine.context_tokens = 400
    dialogue = Dialogue(noise(19.0), engine.profile)
    for _ in run([dialogue], engine):
        pass
    assert dialogue.outcome is not None and dialogue.outcome.stop is Stop.CONTEXT
    assert "400 tokens" in dialogue.outcome.detail


@pytest.mark.parametrize("lookahead", [0, 32])
def test_no_token_is_read_past_the_context(random_checkpoint: Path, lookahead: int) -> None:
    """A turn that the context ends in stops there, and says so; what was written of it stays."""
    engine = TransformersEngine(
        load_checkpoint(random_checkpoint, device="cpu"), lookahead=lookahead
    )
    longest, read = [0], engine.text.read

    def watched(rows: Any, blocks: Any, last: Any) -> Any:
        [row], [block] = rows, blocks
        longest[0] = max(longest[0], row.tokens + len(block))
        return read(rows, blocks, last)

    engine.text.read = watched  # type: ignore[method-assign]
    request = Dialogue(noise(4.0), engine.profile).request
    assert request is not None
    [whole] = engine.ask([request])
    read_in_all = request.session.memory["transformers"].held.tokens
    assert longest[0] >= read_in_all and whole.error is None
    engine._fits = lambda row: True  # type: ignore[method-assign]
    for context in range(read_in_all - len(whole.ids) + 2, read_in_all + 1):
        engine.context_tokens = context
        request.session.memory.clear()
        longest[0] = 0
        [cut] = engine.ask([request])
        assert longest[0] <= context
        if context < read_in_all:
            assert cut.stop is Stop.CONTEXT and cut.error and str(context) in cut.error
            assert cut.ids == whole.ids[: len(cut.ids)]
        else:
            assert (cut.ids, cut.error, cut.stop) == (whole.ids, None, Stop.ENGINE)


@pytest.mark.parametrize("answer", ["assembled", "model"])
def test_both_answers(random_engine: Any, answer: str) -> None:
    dialogue = Dialogue(noise(5.0, 4), random_engine.profile, answer=answer)
    for _ in run([dialogue], random_engine):
        pass
    assert dialogue.outcome is not None
    last = dialogue.outcome.trace.answers[-1].text
    assert last.endswith("<answer>" if answer == "assembled" else "</answer>")


def test_every_reply_is_accepted_by_the_grammar(random_engine: Any) -> None:
    profile = replace(random_engine.profile, decimals=2)
    dialogue = Dialogue(noise(6.0, 8), profile)
    while (request := dialogue.request) is not None:
        [reply] = random_engine.ask([Request(request.session, request.parts, request.rules)])
        assert complete(advance(start(request.rules), reply.text.encode()))
        dialogue.feed(reply)


def test_probabilities_are_of_the_unconstrained_model(random_engine: Any) -> None:
    request = Dialogue(noise(2.0), random_engine.profile).request
    assert request is not None
    [reply] = random_engine.ask([request])
    assert len(reply.probabilities) == len(reply.ids) == len(reply.sizes)
    assert np.mean(reply.probabilities) < 0.9
