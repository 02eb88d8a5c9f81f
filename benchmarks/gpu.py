"""Steps and dialogues of the released models' sizes on one GPU, with random weights: each way of reading, in turn.

    python benchmarks/gpu.py [--models qwen3-omni-30b-a3b qwen2.5-omni-7b] [--minutes 8]
    python benchmarks/gpu.py --small --ways classes captured --output /tmp/gpu.json   # any machine: does it run?

For each model and way: the time of a step (one new token of each dialogue after a context), then whole dialogues over
the example recording, in which the turns of the embedded checkpoint are forced, whatever the random weights would
write. Tokens get noise, so that equal dialogues of a batch choose different experts, as different ones do. `generate`
is the published loop's work on the same turns: for each, transformers' `generate` over the whole conversation so far
with all its audio; it writes the answer, too, which this engine assembles. The floor of a step is the bytes of the
parameters that one token meets over the measured rate of a copy. A part that fails is a row with its reason, and one
that warned has its warnings; what is known is stored as it is known, and nothing begins when the minutes are over.
`--small` makes the same models narrow.
"""

import argparse
import gc
import json
import logging
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import common
from common import provenance, spread
from speaker_reasoner import audio, load_engine
from speaker_reasoner.audio import SAMPLE_RATE_HZ
from speaker_reasoner.engines.checkpoint import Checkpoint
from speaker_reasoner.engines.local import TransformersEngine
from speaker_reasoner.engines.logits import Logits
from speaker_reasoner.engines.memory import Held
from speaker_reasoner.engines.placed import PREFILL_USES, PlacedText
from speaker_reasoner.engines.thinker import log_mel, slice_tokens, text_model
from speaker_reasoner.errors import first_line
from speaker_reasoner.protocol import pieces
from speaker_reasoner.reasoner import Dialogue, run
from speaker_reasoner.train.shapes import PUBLISHED, ModelShape, load_model

EXAMPLE = Path(__file__).parent.parent / "examples" / "meeting.flac"
STEPS = 30
NOISE_TOKENS = 4096
LIBRARY = "captured, transformers' experts"
WAYS: dict[str, dict[str, Any]] = {
    "classes": {"experts": "library", "compile": "never"},
    "captured": {"experts": "kernel", "compile": "never", "cuda_graphs": True},
    "apart": {"experts": "auto", "compile": "never", "cuda_graphs": True, "deterministic": True},
    LIBRARY: {"experts": "library", "compile": "never", "cuda_graphs": True},
    "compiled": {"experts": "auto", "compile": "always", "cuda_graphs": True},
}
OVER = "left out: the minutes were over"
SHARES = {"qwen3-omni-30b-a3b": 2.0, "qwen2.5-omni-7b": 1.0}
"""Each model's share of the minutes."""
NARROW = {
    "text_config": {
        "vocab_size": 4096,
        "pad_token_id": 0,
        "hidden_size": 256,
        "intermediate_size": 64,
        "moe_intermediate_size": 24,
        "num_experts": 6,
        "num_experts_per_tok": 2,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 128,
    },
    "audio_config": {
        "d_model": 32,
        "encoder_layers": 1,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "downsample_hidden_size": 8,
        "output_dim": 256,
    },
    "vision_config": {
        "depth": 1,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_heads": 1,
        "out_hidden_size": 256,
        "fullatt_block_indexes": [0],
        "deepstack_visual_indexes": [0],
    },
}


class Forced(TransformersEngine):
    """Writes given turns; all else is as for turns of its own."""

    turns: Sequence[Sequence[int]] = ()

    def __init__(self, checkpoint: Checkpoint, **options: Any) -> None:
        super().__init__(checkpoint, **options)
        table = self.thinker.get_input_embeddings().weight
        noise = 3 * float(table[:1000].detach().float().std()) * drawn(NOISE_TOKENS, table.shape[1])
        self.noise = noise.to(table.device, table.dtype)

    def _embed_ids(self, ids: Sequence[int]) -> torch.Tensor:
        """Embeddings with noise that differs from token to token, so that the rows of a batch differ, too."""
        return super()._embed_ids(ids) + self.noise[: len(ids)]

    def _pick(self, row: Any, logits: Logits, place: int) -> int:
        turn = sum(piece.learned for piece in row.memory.pieces)
        likely = logits.likely(place)
        likely[0] = self.turns[turn][len(row.ids)]  # as if it were: no further logits are copied
        token, row.state = self.vocabulary.choose(likely, lambda: logits.all(place), row.state)
        return token


def drawn(*shape: int) -> torch.Tensor:
    """Random numbers, from the processor: after a capture that failed, torch refuses to draw them on the GPU."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


class ForcedTokens:
    """A logits processor of transformers that leaves one token each time."""

    def __init__(self, ids: Sequence[int], begin: int) -> None:
        self.ids, self.begin = ids, begin

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        forced = torch.full_like(scores, -torch.inf)
        forced[:, self.ids[input_ids.shape[1] - self.begin]] = 0
        return forced


def shape_of(name: str, small: bool) -> ModelShape:
    if not small:
        return load_model(name)
    config = dict(PUBLISHED[name])
    for part, sizes in NARROW.items():
        config[part] = {**config.get(part, {}), **sizes}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.json"
        path.write_text(json.dumps(config), encoding="utf-8")
        return load_model(path)


def made(shape: ModelShape, own: Checkpoint, device: str) -> Checkpoint:
    """A checkpoint of a model's sizes with random weights; tokens are the embedded checkpoint's."""
    config = shape.thinker.config
    for name, value in own.thinker.config.to_dict().items():
        if name.endswith("_token_id") and isinstance(value, int):
            setattr(config, name, value)
    kind = torch.bfloat16 if device == "cuda" else torch.float32
    torch.set_default_dtype(kind)
    try:
        with torch.device(device):
            thinker = type(shape.thinker)(config).eval()
    finally:
        torch.set_default_dtype(torch.float32)
    return replace(own, name=shape.name, thinker=thinker)


def conversation(engine: TransformersEngine, answer: str) -> list[Any]:
    """The tokenised parts of a dialogue over the example recording, its turns among them."""
    dialogue = Dialogue(audio.load(EXAMPLE), engine.profile, answer=answer)
    for _ in run([dialogue], engine):
        pass
    assert dialogue.outcome is not None
    return list(pieces(dialogue.outcome.trace.parts, engine.tokenizer, engine.end_id))


def seconds_of(work: Callable[[], Any], device: str) -> float:
    synchronise(device)
    begun = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - begun


def synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def floor_s(shape: ModelShape, device: str) -> float | None:
    """Return a step's least time: that of copying the bfloat16 weights that one token reads."""
    if device != "cuda":
        return None
    held = torch.empty(1 << 30, dtype=torch.float32, device=device)
    other = torch.empty_like(held)
    copied = min(seconds_of(lambda: other.copy_(held), device) for _ in range(5))
    met = shape.parameters.text_active - shape.parameters.embeddings  # of which it reads one row
    return met * 2 / (2 * held.nbytes / copied)


def engine_of(checkpoint: Checkpoint, way: str, turns: Any, device: str) -> Forced:
    options = dict(WAYS[way])
    if not has_experts(checkpoint):
        options["experts"] = "library"
    places = options.pop("cuda_graphs", False)
    engine = Forced(checkpoint, cuda_graphs=places and device == "cuda", **options)
    if places and device != "cuda":
        choices = {"compile": engine.compile, "apart": engine.deterministic}
        engine.text = PlacedText(engine.thinker, capture=False, **choices)
    engine.turns = turns
    return engine


def has_experts(checkpoint: Checkpoint) -> bool:
    return hasattr(text_model(checkpoint.thinker).layers[0].mlp, "experts")


@torch.inference_mode()
def steps(engine: Forced, at_once: int, context: int, device: str) -> dict[str, float]:
    """Seconds of a step of one token for each of some dialogues."""
    thinker, reader = engine.thinker, engine.text
    width = thinker.get_input_embeddings().weight.shape[1]
    rows = [Held() for _ in range(at_once)]
    given = (drawn(context, width) * 0.02).to(device, thinker.dtype)
    tokens = (drawn(at_once, 1, width) * 0.02).to(device, thinker.dtype)

    def step() -> None:
        if engine.deterministic:
            for row, token in zip(rows, tokens, strict=True):
                reader.read([row], [token], [1])
        else:
            reader.read(rows, list(tokens), [1] * at_once)

    with engine.experts.used():
        for row in rows:
            reader.read([row], [given], [1])
        for _ in range(5):  # the first captures
            step()
        taken = [seconds_of(step, device) for _ in range(STEPS)]
        reader.release()
    return {name: round(value, 6) for name, value in spread_of(taken).items()}


def spread_of(values: list[float]) -> dict[str, float]:
    """As `spread`, of times below a millisecond."""
    return {name: value / 1e3 for name, value in spread([value * 1e3 for value in values]).items()}


def dialogues(engine: Forced, at_once: int, device: str) -> dict[str, Any]:
    """Whole dialogues over the example recording; where steps and prefills are captured the last of several times, for
    the others capture."""
    clip, written = audio.load(EXAMPLE), 0

    def work() -> None:
        nonlocal written
        asked = [Dialogue(clip, engine.profile) for _ in range(at_once)]
        for _ in run(asked, engine):
            pass
        written = sum(len(a.ids) for d in asked if d.outcome for a in d.outcome.trace.answers)

    captures = PREFILL_USES if isinstance(engine.text, PlacedText) else 0
    *before, taken = (seconds_of(work, device) for _ in range(captures + 1))
    return {
        "seconds": round(taken, 3),
        "seconds_before": [round(value, 3) for value in before],
        "tokens": written,
        "tokens_a_second": round(written / taken, 1),
        "audio_s_a_second": round(at_once * len(clip) / SAMPLE_RATE_HZ / taken, 2),
    }


@torch.inference_mode()
def generated(checkpoint: Checkpoint, parts: Sequence[Any], device: str) -> dict[str, Any]:
    """The turns of a conversation, each by `generate` over all before it."""
    thinker, clip = checkpoint.thinker, audio.load(EXAMPLE)
    audio_id, end_id = int(thinker.config.audio_token_id), parts[-1].ids[-1]
    written = 0

    def work() -> None:
        nonlocal written
        written = 0
        ids: list[int] = []
        clips: list[Any] = []
        for part in parts:
            if part.audio is not None:
                clips.append(clip[part.audio.start_samples : part.audio.end_samples])
                ids += [audio_id] * slice_tokens(thinker, [len(clips[-1])])[0]
            elif part.learned:
                features, mask = log_mel(checkpoint.extractor, clips)
                thinker.model.rope_deltas = None
                given = torch.tensor([ids], device=device)
                out = thinker.generate(
                    input_ids=given,
                    attention_mask=torch.ones_like(given),
                    input_features=features.to(device, thinker.dtype),
                    feature_attention_mask=mask.to(device),
                    logits_processor=[ForcedTokens(part.ids, len(ids))],
                    max_new_tokens=len(part.ids),
                    do_sample=False,
                    eos_token_id=end_id,
                    pad_token_id=end_id,
                )
                ids += part.ids
                if out[0].tolist() != ids:
                    raise RuntimeError("generate did not write the turn that was forced")
                written += len(part.ids)
            else:
                ids += part.ids

    taken = seconds_of(work, device)
    return {"seconds": round(taken, 3), "tokens": written}


class Warned(logging.Handler):
    """Notes in a row what the engine warns of: a way that fell back is not what its name says."""

    def __init__(self, row: dict[str, Any]) -> None:
        super().__init__(logging.WARNING)
        self.row = row

    def emit(self, record: logging.LogRecord) -> None:
        self.row.setdefault("warnings", []).append(record.getMessage())


def free() -> None:
    """Give memory back, if the card still answers."""
    gc.collect()
    if torch.cuda.is_available():
        with suppress(RuntimeError):  # of an earlier kernel, after which all calls fail
            torch.cuda.empty_cache()


class Results:
    """Results so far, in a file."""

    def __init__(self, path: Path | None, about: dict[str, Any]) -> None:
        self.path, self.about = path, {**provenance(), **about}
        self.models: dict[str, Any] = {}

    def part(
        self, model: str, name: str, ends: float, work: Callable[[dict[str, Any]], Any]
    ) -> Any:
        """Do a part, which writes to its own row. It may fail alone; one that would begin too late is left out."""
        row = self.models.setdefault(model, {}).setdefault(name, {})
        Console(stderr=True).print(f"{time.strftime('%H:%M:%S')} {model}: {name}")
        done = None
        if time.monotonic() > ends:
            row["failed"] = OVER
        else:
            warned = Warned(row)
            logger = logging.getLogger("speaker_reasoner")
            logger.addHandler(warned)
            try:
                done = work(row)
            except Exception as error:  # whatever a library, a driver or a kernel raises
                row["failed"] = f"{type(error).__name__}: {first_line(error)}"
                Console(stderr=True).print(f"  {row['failed']}", markup=False)
            finally:
                logger.removeHandler(warned)
        self.write()
        free()
        return done

    def write(self) -> None:
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps({**self.about, "models": self.models}, indent=2)
            self.path.write_text(text + "\n", encoding="utf-8")


def measure(
    results: Results, name: str, own: Checkpoint, parts: Sequence[Any], ends: float, given: Any
) -> None:
    """All of one model."""
    device = results.about["device"]
    turns = [part.ids for part in parts if part.learned]

    def weights(row: dict[str, Any]) -> Checkpoint:
        shape = shape_of(name, given.small)
        row["floor_s"] = floor_s(shape, device)
        begun = time.perf_counter()
        checkpoint = made(shape, own, device)
        row["seconds"] = round(time.perf_counter() - begun, 1)
        return checkpoint

    checkpoint = results.part(name, "weights", ends, weights)
    if checkpoint is None:
        return

    def reading(row: dict[str, Any], way: str) -> None:
        row["options"] = WAYS[way]
        engine = engine_of(checkpoint, way, turns, device)
        row["kernel"], row["step_s"], row["dialogue"] = engine.experts.kernel, {}, {}
        for count in given.at_once:
            if time.monotonic() > ends:
                row["failed"] = f"{count} at once {OVER}"
                break
            row["step_s"][str(count)] = steps(engine, count, given.context, device)
            results.write()
            row["dialogue"][str(count)] = dialogues(engine, count, device)
            results.write()

    for way in given.ways:
        if way == LIBRARY and not has_experts(checkpoint):
            continue  # it is `captured`
        results.part(name, way, ends, partial(reading, way=way))
        if way == given.ways[0]:
            results.part(
                name, "generate", ends, lambda row: row.update(generated(checkpoint, parts, device))
            )


def version_of(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def show(results: Results) -> None:
    table = Table("model", "way", "at once", "ms a step", "s each", "times generate", "audio s a s")
    failed = []
    for model, rows in results.models.items():
        theirs = rows.get("generate", {}).get("seconds")
        if theirs:
            table.add_row(model, "generate", "1", "", f"{theirs:.2f}", "1", "")
        for way, row in rows.items():
            for count, spoken in row.get("dialogue", {}).items():
                step = f"{row['step_s'][count]['median'] * 1e3:.2f}"
                each = spoken["seconds"] / int(count)
                faster = f"{theirs / each:.1f}" if theirs else ""
                heard = str(spoken["audio_s_a_second"])
                table.add_row(model, way, count, step, f"{each:.2f}", faster, heard)
            told = [row["failed"]] if "failed" in row else []
            failed += [f"{model}, {way}: {line}" for line in told + row.get("warnings", [])]
    Console().print(table)
    for line in failed:
        Console().print(line, markup=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=list(SHARES), default=list(SHARES))
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--at-once", nargs="+", type=int, default=[1, 16])
    parser.add_argument("--context", type=int, default=980)
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--small", action="store_true", help="narrow models: does it run?")
    parser.add_argument("--output", type=Path, help="default: docs/results/gpu.json, from a GPU")
    given = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not (given.small and given.output):
        parser.error("no GPU; without one, --small --output FILE tries the same code")
    begun = time.monotonic()
    about = {
        "device": device,
        "card": torch.cuda.get_device_name() if device == "cuda" else None,
        "cuda": torch.version.cuda,
        "triton": version_of("triton"),
        "small": given.small,
        "context": given.context,
    }
    path = given.output or (None if given.small else common.RESULTS / "gpu.json")
    results = Results(path, about)
    here = load_engine("tiny", device="cpu")
    parts = conversation(here, "model")
    shares = [SHARES[name] for name in given.models]
    for number, name in enumerate(given.models):
        ends = begun + given.minutes * 60 * sum(shares[: number + 1]) / sum(shares)
        measure(results, name, here.checkpoint, parts, ends, given)
        free()
    show(results)
    if path is not None:
        Console(stderr=True).print(f"wrote {path}")


if __name__ == "__main__":
    main()
