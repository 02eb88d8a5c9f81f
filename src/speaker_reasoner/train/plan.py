"""Memory and time of training a thinker, computed from its config; nothing is allocated.

Parameters are those of the class itself, built on the `meta` device. Activations follow
Korthikanti et al. 2022 (arXiv 2205.05198, Sec. 4): what autograd keeps of each operation of a layer,
here of grouped-query attention, SwiGLU, mixtures of experts and RMSNorm as transformers write them
(fused attention: no matrix of scores is kept). States of mixed precision and their sharding follow
Rajbhandari et al. 2020 (ZeRO, arXiv 1910.02054): 16 bytes a trained parameter.

Does not cover: padding, quantised bases, tensor and expert parallelism, offloading, time on the wire.
1 GB is 10^9 bytes here.
"""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from ..engines.thinker import audio_tower
from ..errors import DataError
from .shapes import DialogueShape, ModelShape, average_dialogue

BUCKET = 500_000_000
"""Elements of DeepSpeed's reduce_bucket_size, by default."""
_MOST = {
    "rank": 65_536,
    "gpus": 1_000_000,
    "batch": 100_000,
    "gpu_memory_gb": 1_000_000,
    "hours": 1_000_000_000,
    "peak_tflops": 1_000_000,
}
"""Largest numbers of a setup."""


@dataclass(frozen=True, slots=True)
class Setup:
    """One way to train.

    Attributes:
        method: `lora` (adapters in float32 on the attention and MLP projections of the text model)
            or `full` (everything but the vision tower).
        lora_experts: adapters on the routed experts of a mixture as well.
        sharding: over `gpus`: `none` (DDP), `zero2` (gradients and optimiser), `zero3`, `fsdp`
            (everything; FSDP2 with one unit a layer).
        gpu_memory_gb: of one GPU, in GB.
        head_room: share of it that is left free: CUDA context, NCCL, fragmentation.
        batch: dialogues on a GPU at once.
        turns: observations in a dialogue; `None` for as many as meetings have (`TURNS_PER_S`).
        dtype: of the weights that compute, `bf16` or `fp32`.
        all_logits: logits at every token, as the class's own loss does; otherwise at taught ones.
        hours: of audio in an epoch.
        mfu: share of the peak that is reached, recomputed activations counted as work.
        peak_tflops: of one GPU, dense; 312 is bf16 on an A100, 989 on an H100 SXM (NVIDIA's data
            sheets).

    Raises:
        DataError: a number is impossible.
    """

    method: str = "lora"
    rank: int = 8
    lora_experts: bool = False
    gpus: int = 1
    gpu_memory_gb: float = 80.0
    head_room: float = 0.1
    sharding: str = "none"
    batch: int = 1
    chunk_s: float = 50.0
    turns: int | None = None
    gradient_checkpointing: bool = False
    dtype: str = "bf16"
    all_logits: bool = False
    hours: float = 100.0
    mfu: float = 0.35
    peak_tflops: float = 312.0

    def __post_init__(self) -> None:
        known = {
            "method": ("lora", "full"),
            "sharding": ("none", "zero2", "zero3", "fsdp"),
            "dtype": ("bf16", "fp32"),
        }
        for name, values in known.items():
            if getattr(self, name) not in values:
                raise DataError(
                    f"plan: {name} {getattr(self, name)!r} is not {' or '.join(values)}"
                )
        for name, most in _MOST.items():
            value = getattr(self, name)
            if not 0 < value <= most:
                got = str(value) if len(str(value)) < 20 else f"{str(value)[:12]}..."
                raise DataError(
                    f"plan: {name} {got} is out of range: expected more than 0, at most {most}"
                )
        if not 0 < self.mfu <= 1 or not 0 <= self.head_room < 1:
            raise DataError(
                f"plan: mfu {self.mfu} and head_room {self.head_room} are shares; expected 0 to 1"
            )
        if not 1 <= self.chunk_s <= 3600:
            raise DataError(f"plan: chunk_s {self.chunk_s} is not within 1..3600 seconds")
        if self.turns is not None and not 1 <= self.turns <= self.chunk_s * 5:
            raise DataError(
                f"plan: {self.turns} turns in {self.chunk_s:g} s; expected at least 1 turn, and "
                "0.2 s for each"
            )

    @property
    def full(self) -> bool:
        return self.method == "full"

    @property
    def width(self) -> int:
        """Bytes of a number that computes."""
        return 2 if self.dtype == "bf16" else 4


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes on one GPU.

    Attributes:
        weights: frozen and trained.
        gradients: of trained weights.
        optimiser: AdamW's two moments, and the float32 weights where bf16 ones compute.
        communication: layers gathered from their shards, buckets of gradients.
        text, audio: activations that autograd keeps of the towers until the backward pass.
        peak: the largest temporary memory: logits and their gradients, a recomputed layer, gradients of
            activations, or the audio tower's convolutions.
    """

    weights: int
    gradients: int
    optimiser: int
    communication: int
    text: int
    audio: int
    peak: int

    @property
    def total(self) -> int:
        return sum(asdict(self).values())


@dataclass(frozen=True, slots=True)
class Time:
    """One epoch. FLOPs are of one GPU in one step."""

    step_flops: float
    step_s: float
    steps: int
    gpu_hours: float


def memory(model: ModelShape, setup: Setup, spoken: DialogueShape) -> Memory:
    """Bytes on each GPU in the step's worst moment."""
    text, audio, peak = activations(model, setup, spoken)
    parameters, width = model.parameters, setup.width
    trained = trained_parameters(model, setup)
    if setup.full:
        frozen, state = parameters.total - trained, (width, width, 8 if width == 4 else 12)
    else:
        frozen, state = parameters.total, (4, 4, 8)
    weights = frozen * width + trained * state[0]
    gradients, optimiser = trained * state[1], trained * state[2]
    shards = setup.gpus if setup.sharding != "none" else 1
    communication = 0
    if setup.gpus > 1 and setup.sharding in ("none", "zero2"):
        bucket = trained if setup.sharding == "none" else 2 * min(trained, BUCKET)
        communication = bucket * state[1]
    elif shards > 1:  # a layer at work, the next one on its way, and what is in no layer
        whole = max(sum(p.numel() for p in layer.parameters()) for layer in model.layers)
        gathered = 2 * whole + parameters.embeddings + parameters.head
        communication = gathered * width + (whole * width if setup.full else 0)
    if setup.sharding in ("zero3", "fsdp"):
        weights = -(-weights // shards)
    return Memory(
        weights=weights,
        gradients=-(-gradients // shards),
        optimiser=-(-optimiser // shards),
        communication=communication,
        text=text,
        audio=audio,
        peak=peak,
    )


def trained_parameters(model: ModelShape, setup: Setup) -> int:
    """Return how many parameters the optimiser sees on all GPUs together."""
    if setup.full:
        return model.parameters.total - model.parameters.vision
    return model.lora(setup.rank, experts=setup.lora_experts)


def activations(model: ModelShape, setup: Setup, spoken: DialogueShape) -> tuple[int, int, int]:
    """Bytes kept of the text model and of the audio tower, and the most that comes on top.

    Logits of n tokens over V words take (12 + w) n V bytes when the backward pass begins: w the
    logits, 4 their log-probabilities in float32, 4 and 4 the gradients of both.
    """
    width, text = setup.width, model.text
    tokens = setup.batch * spoken.tokens
    scored = tokens if setup.all_logits else setup.batch * spoken.taught_tokens
    logits = scored * text.vocab_size * (12 + width)
    layers = [layer_bytes(layer, setup, model) for layer in model.layers]
    last = tokens * _norm(text.hidden_size, setup) + scored * text.hidden_size * width * setup.full
    widest = max(_widest(layer, model) for layer in model.layers)
    passing = tokens * 2 * width * widest
    merged = 0
    if setup.lora_experts and not setup.full:
        # peft adds the product of the factors to all experts: one more copy of a layer's weights
        merged = width * model.parameters.experts // max(1, sum(map(_routed, model.layers)))
    if setup.gradient_checkpointing:
        kept = tokens * len(layers) * width * text.hidden_size
        passing += tokens * max(layers) + 2 * merged
    else:
        kept = tokens * sum(layers) + merged * sum(map(_routed, model.layers))
        passing += merged
    audio, convolving = _audio_bytes(model, setup, setup.batch * spoken.audio_s)
    return kept + last, audio, max(logits, passing, convolving)


def layer_bytes(layer: Any, setup: Setup, model: ModelShape) -> int:
    """Bytes that autograd keeps of one text layer for each token.

    With width w of a number, h of the stream, q and k of queries and keys: a norm keeps its input in
    float32 (4h) and, if its scale is trained, what it scales (wh); a trained projection its input,
    which those of one place share; an adapter its own copy of it, since peft casts to float32 and
    autocast back, and its r outputs. Attention keeps queries, keys, values, its output, and one
    float32 a head. SwiGLU of width f keeps gate, its SiLU, up, and the product: 4wf.
    """
    width, full, rank = setup.width, setup.full, setup.rank
    attention, mlp = layer.self_attn, layer.mlp
    stream, queries = attention.q_proj.in_features, attention.q_proj.out_features
    keys = attention.k_proj.out_features

    def inputs(size: int, projections: int) -> int:
        if full:
            return width * size
        copies = projections if width == 2 else 1
        return width * size * copies + width * rank * projections

    kept = _norm(stream, setup) + inputs(stream, 3)
    if hasattr(attention, "q_norm"):
        kept += _norm(queries, setup) + _norm(keys, setup)
    kept += 2 * width * (queries + keys) + 4 * (queries // attention.head_dim)
    if not full:  # the output projection's input; otherwise it is the attention's output itself
        kept += inputs(queries, 1) if width == 2 else width * rank
    kept += _norm(stream, setup)
    if not _routed(layer):
        ffn = mlp.gate_proj.out_features
        return int(kept + inputs(stream, 2) + 3 * width * ffn + inputs(ffn, 1))
    chosen, ffn = model.text.num_experts_per_tok, model.text.moe_intermediate_size
    adapted = full or setup.lora_experts
    expert = 3 * ffn + stream + (stream + ffn if adapted else 0)
    routing = 4 * model.text.num_experts + 32 * chosen + (width * stream if full else 0)
    return int(kept + routing + width * chosen * expert)


def _norm(size: int, setup: Setup) -> int:
    return size * (4 + setup.width * setup.full)


def _routed(layer: Any) -> bool:
    return hasattr(layer.mlp, "experts")


def _widest(layer: Any, model: ModelShape) -> int:
    """Numbers a token has at the layer's widest place."""
    if _routed(layer):
        ffn, stream = model.text.moe_intermediate_size, model.text.hidden_size
        return int(model.text.num_experts_per_tok * max(2 * ffn, stream))
    return int(max(layer.mlp.gate_proj.out_features, layer.self_attn.q_proj.out_features))


@dataclass(frozen=True, slots=True)
class _Convolution:
    """One convolution of the audio tower, for a second of audio: positions, its input's numbers."""

    weight: torch.Tensor
    positions: int
    inputs: int

    @property
    def outputs(self) -> int:
        return self.positions * self.weight.shape[0]

    @property
    def flops(self) -> int:
        return 2 * self.weight.numel() * self.positions


def _convolutions(model: ModelShape) -> tuple[list[_Convolution], int]:
    """The audio tower's convolutions (100 frames a second go in), and the layers' tokens a second."""
    tower = audio_tower(model.thinker)
    mels = tower.num_mel_bins
    if not hasattr(tower, "conv2d1"):
        width = tower.conv1.out_channels
        first = _Convolution(tower.conv1.weight, 100, mels * 100)
        return [first, _Convolution(tower.conv2.weight, 50, width * 100)], 50
    convolutions, high, long, inputs = [], mels, 100, mels * 100
    for layer in (tower.conv2d1, tower.conv2d2, tower.conv2d3):
        high, long = (high + 1) // 2, (long + 1) // 2
        convolutions.append(_Convolution(layer.weight, high * long, inputs))
        inputs = convolutions[-1].outputs
    return convolutions, 13


def _audio_bytes(model: ModelShape, setup: Setup, audio_s: float) -> tuple[int, int]:
    """Return the bytes of the audio tower's kept activations, and the temporary bytes of its widest convolution.

    A layer of width d and inner width f keeps w(8d + 2f) bytes: both norms' inputs and outputs,
    queries, keys, values, attention's output, and the inner layer before and after GELU (the paper's
    34 without dropout). Frozen, as with LoRA, nothing.
    """
    tower, width = audio_tower(model.thinker), setup.width
    convolutions, rate = _convolutions(model)
    passing = 2 * width * max(one.outputs for one in convolutions)
    kept = 0
    if setup.full:
        kept = width * sum(one.inputs + one.outputs for one in convolutions)
        inside = tower.layers[0].fc1
        layer = width * (8 * inside.in_features + 2 * inside.out_features)
        if setup.gradient_checkpointing:
            kept += rate * (len(tower.layers) * width * inside.in_features + layer)
        else:
            kept += rate * len(tower.layers) * layer
    return round(kept * audio_s), round(passing * audio_s)


def time(model: ModelShape, setup: Setup, spoken: DialogueShape) -> Time:
    """Work of a step and of an epoch.

    A token takes 2 FLOPs for each weight it meets, and as many again for the gradient of its input
    and, where weights are trained, of the weight; LoRA leaves the last out, except for adapted
    experts, whose gradient peft forms whole. Causal attention over T tokens takes 2 T^2 q a layer
    forward, twice that backward. A frozen audio tower runs forward only.
    """
    parameters, tokens = model.parameters, spoken.tokens
    scored = tokens if setup.all_logits else spoken.taught_tokens
    text = model.text
    head = text.vocab_size * text.hidden_size  # tied or not
    layers = parameters.text_active - parameters.embeddings - parameters.head
    queries = model.layers[0].self_attn.q_proj.out_features
    attention = 2 * tokens**2 * queries * len(model.layers)
    forward = 2 * layers * tokens + attention
    passes = 3 if setup.full else 2
    flops = 2.0 * layers * tokens * passes + 3 * attention + 2 * head * scored * passes
    if not setup.full:
        flops += 6 * model.lora(setup.rank, experts=False) * tokens
        if setup.lora_experts:
            flops += 2 * parameters.experts_active * tokens
    if setup.gradient_checkpointing:
        flops += forward
    convolutions, rate = _convolutions(model)
    linear = parameters.audio - sum(one.weight.numel() for one in convolutions)
    hearing = 2 * linear * rate + sum(one.flops for one in convolutions)
    flops += (
        hearing * spoken.audio_s * ((4 if setup.gradient_checkpointing else 3) if setup.full else 1)
    )
    flops *= setup.batch
    step_s = flops / (setup.mfu * setup.peak_tflops * 1e12)
    steps = math.ceil(setup.hours * 3600 / (setup.chunk_s * setup.batch * setup.gpus))
    return Time(flops, step_s, steps, steps * step_s * setup.gpus / 3600)


@dataclass(frozen=True, slots=True)
class Plan:
    """The report of one setup.

    Attributes:
        trained: parameters the optimiser sees.
        largest_batch: dialogues on a GPU at once that still leave the head room; 0 if none.
    """

    model: ModelShape
    setup: Setup
    dialogue: DialogueShape
    trained: int
    memory: Memory
    time: Time
    largest_batch: int

    @property
    def verdict(self) -> str:
        """`fits`, `tight` (into the head room) or `does not fit`."""
        limit = self.setup.gpu_memory_gb * 1e9
        if self.memory.total <= limit * (1 - self.setup.head_room):
            return "fits"
        return "tight" if self.memory.total <= limit else "does not fit"

    def to_json(self) -> dict[str, Any]:
        counts = self.model.parameters
        lora = {
            name: self.model.lora(self.setup.rank, experts=experts)
            for name, experts in (("without_experts", False), ("with_experts", True))
        }
        return {
            "schema": "speaker-reasoner/plan/1",
            "model": self.model.name,
            "setup": asdict(self.setup),
            "parameters": {
                **asdict(counts),
                "total": counts.total,
                "text": counts.text,
                "text_active": counts.text_active,
                "trained": self.trained,
                "lora": lora,
            },
            "dialogue": {**asdict(self.dialogue), "tokens": self.dialogue.tokens},
            "memory_bytes": {**asdict(self.memory), "total": self.memory.total},
            "verdict": self.verdict,
            "largest_batch": self.largest_batch,
            "time": asdict(self.time),
        }


def plan(model: ModelShape, setup: Setup) -> Plan:
    """Compute the memory and time of a setup.

    Raises:
        DataError: the rank is larger than the model is wide.
    """
    if not setup.full and setup.rank > model.text.hidden_size:
        raise DataError(
            f"plan: rank {setup.rank} is above the model's width {model.text.hidden_size}"
        )
    spoken = average_dialogue(model, setup.chunk_s, setup.turns)
    free = setup.gpu_memory_gb * 1e9 * (1 - setup.head_room)

    def fits(batch: int) -> bool:
        return memory(model, replace(setup, batch=batch), spoken).total <= free

    largest = 0
    while largest < 4096 and fits(max(1, 2 * largest)):
        largest = max(1, 2 * largest)
    for step in (largest >> n for n in range(1, largest.bit_length())):
        largest += step if fits(largest + step) else 0
    return Plan(
        model=model,
        setup=setup,
        dialogue=spoken,
        trained=trained_parameters(model, setup),
        memory=memory(model, setup, spoken),
        time=time(model, setup, spoken),
        largest_batch=largest,
    )
