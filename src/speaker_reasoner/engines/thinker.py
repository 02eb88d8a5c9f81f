"""Access to the parts of a thinker in any supported version of transformers: audio tower, text model, markup,
log-mel features, audio embeddings.

Attribute paths moved between transformers 5.20 and 5.21; saved keys did not. Nothing here decodes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..audio import SAMPLE_RATE_HZ
from ..errors import CheckpointError

_OTHER_MARKS = {"<|audio_start|>": "<|audio_bos|>", "<|audio_end|>": "<|audio_eos|>"}
"""Our audio markup (Qwen3-Omni's) as Qwen2.5-Omni's tokenizer has it."""

SHORTEST_SAMPLES = SAMPLE_RATE_HZ
"""Clips under 1 s encode differently alone and in a batch: they are padded with zeros to this."""

HOP_SAMPLES = SAMPLE_RATE_HZ // 100
"""10 ms, the step of the log-mel features."""


def text_model(thinker: Any) -> Any:
    """The text decoder: embeddings in, hidden states out."""
    inner = thinker.model
    return getattr(inner, "language_model", inner)


def audio_tower(thinker: Any) -> Any:
    tower = getattr(thinker, "audio_tower", None)
    return thinker.model.audio_tower if tower is None else tower


def embed(thinker: Any, ids: Tensor) -> Tensor:
    """Token embeddings `[B, T, D]` of ids `[B, T]`."""
    embedded: Tensor = thinker.get_input_embeddings()(ids)
    return embedded


def audio_marks(tokenizer: Any) -> dict[str, str]:
    """The audio markup of the protocol, and the tokens that stand for it in this tokenizer."""
    known = tokenizer.get_vocab()
    return {ours: ours if ours in known else other for ours, other in _OTHER_MARKS.items()}


class MarkedTokenizer:
    """A tokenizer that takes the protocol's markup and writes its own."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.marks = [(ours, own) for ours, own in audio_marks(tokenizer).items() if ours != own]

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        for ours, own in self.marks:
            text = text.replace(ours, own)
        return list(self.tokenizer.encode(text, add_special_tokens=add_special_tokens))


def log_mel(extractor: Any, clips: Sequence[np.ndarray[Any, Any]]) -> tuple[Tensor, Tensor]:
    """Log-mel features of clips at 16 kHz, each computed alone and padded with zeros after it.

    Returns:
        Features `[N, mels, frames]` (100 frames/s) and their mask `[N, frames]`.
    """
    rows = []
    for clip in clips:
        if len(clip) < SHORTEST_SAMPLES:
            clip = np.pad(clip, (0, SHORTEST_SAMPLES - len(clip)))
        with torch.autocast("cpu", enabled=False):  # float32, whatever the model computes in
            features = extractor(
                clip,
                sampling_rate=SAMPLE_RATE_HZ,
                padding=False,
                truncation=False,
                return_tensors="pt",
            ).input_features
        rows.append(features[0])
    frames = max(row.shape[1] for row in rows)
    out = rows[0].new_zeros(len(rows), rows[0].shape[0], frames)
    mask = torch.zeros(len(rows), frames, dtype=torch.long)
    for i, row in enumerate(rows):
        out[i, :, : row.shape[1]] = row
        mask[i, : row.shape[1]] = 1
    return out, mask


def encode_audio(thinker: Any, features: Tensor, mask: Tensor) -> list[Tensor]:
    """Audio embeddings of each clip, `[tokens, D]`, as the text model takes them."""
    tower, frames = audio_tower(thinker), mask.sum(-1).cpu()
    counts = audio_tokens(thinker, frames)
    if hasattr(tower, "conv2d1"):
        output = tower(None, None, return_dict=True, **_windowed(tower, features, frames, counts))
    else:
        output = thinker.get_audio_features(features, mask, return_dict=True)
    flat = getattr(output, "last_hidden_state", output)
    if flat.shape[0] != sum(counts):
        raise CheckpointError(
            f"the audio tower gave {flat.shape[0]} embeddings, its length formula {sum(counts)}"
        )
    return list(torch.split(flat, counts))


def _windowed(
    tower: Any, features: Tensor, frames: Tensor, counts: Sequence[int]
) -> dict[str, Tensor]:
    """Prepare the input of a Qwen3-Omni tower in one go; the class itself lays it out clip by clip, with
    a GPU synchronisation for each. Sizes stay on the processor, so that nothing here or in the tower's layers waits
    for a GPU; FlashAttention alone wants the bounds of windows there.

    Args:
        features: `[N, mels, frames]`.
        frames: of each clip, `[N]` on the CPU.
        counts: tokens that each becomes.
    """
    size = 2 * tower.n_window
    pieces = -(-frames // size)
    within = torch.arange(int(pieces.max()))
    real = within < pieces.unsqueeze(1)  # [N, most pieces]
    lengths = (frames.unsqueeze(1) - within * size).clamp(max=size)[real]  # [P]
    longest = int(lengths.max())
    padded = F.pad(features, (0, len(within) * size - features.shape[-1]))
    padded = padded.reshape(*features.shape[:2], -1, size).transpose(1, 2).flatten(0, 1)
    places = real.flatten().nonzero().squeeze(1)
    padded = padded.index_select(0, places.to(features.device))
    inside = torch.arange(longest) < lengths.unsqueeze(1)
    padded = padded[..., :longest] * inside.to(features.device).unsqueeze(1)  # [P, mels, longest]
    tokens = -(-lengths // 8)  # three convolutions of stride 2
    most = int(tokens.max())
    valid = (torch.arange(most) < tokens.unsqueeze(1)).flatten().nonzero().squeeze(1)
    window = most * (tower.n_window_infer // size)
    bounds = [0]
    for count in counts:
        whole, rest = divmod(count, window)
        bounds += [window] * whole + [rest] * (rest > 0)
    flash = "flash" in str(tower.config._attn_implementation)
    return {
        "padded_feature": padded,
        "chunk_lengths": lengths.to(features.device),
        "valid_indices": valid.to(features.device),
        "cu_seqlens": torch.tensor(bounds)
        .cumsum(-1, dtype=torch.int32)
        .to(features.device if flash else "cpu"),
    }


def audio_tokens(thinker: Any, frames: Tensor, *, pooled: bool = True) -> list[int]:
    """Number of audio tokens for each clip's number of feature frames; with `pooled` false, the number of
    positions in the tower's layers."""
    tower = audio_tower(thinker)
    if hasattr(tower, "conv2d1"):  # Qwen3-Omni: windows of 100 frames give 13 tokens each
        rest = frames % 100
        tail = (rest + 1) // 2
        tail = (tail + 1) // 2
        tail = (tail + 1) // 2
        return [int(n) for n in frames // 100 * 13 + tail]
    held, given = tower._get_feat_extract_output_lengths(frames)  # Qwen2.5-Omni: 50 and 25 a second
    return [int(n) for n in (given if pooled else held)]


def slice_tokens(thinker: Any, samples: Sequence[int]) -> list[int]:
    """Number of audio tokens of slices, by their numbers of samples."""
    frames = [max(count, SHORTEST_SAMPLES) // HOP_SAMPLES for count in samples]
    return audio_tokens(thinker, torch.tensor(frames, dtype=torch.long))


def token_centres(thinker: Any, frames: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Sample positions of the centres of a clip's audio tokens, by its number of feature frames."""
    index = np.arange(audio_tokens(thinker, torch.tensor([frames]))[0])
    if hasattr(audio_tower(thinker), "conv2d1"):  # Qwen3-Omni: 13 a second, 80 ms apart
        return index // 13 * SAMPLE_RATE_HZ + index % 13 * 8 * HOP_SAMPLES + 4 * HOP_SAMPLES
    return index * 4 * HOP_SAMPLES + 2 * HOP_SAMPLES  # Qwen2.5-Omni: 40 ms apart
