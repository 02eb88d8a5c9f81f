"""Three public networks in plain PyTorch: segmentation by speaker, a speaker embedding, and a gender.

* `Segmentation`: pyannote segmentation-3.0 (MIT). Ten seconds of sound in, the probability of each of three local
  speakers every 17 ms out, two of them at once at most.
* `SpeakerEmbedding`: CAM++ of 3D-Speaker (`speech_campplus_sv_zh_en_16k-common_advanced`, Apache-2.0, trained on
  200,000 Chinese and English speakers). Filter banks in, a point of 192 numbers out.
* `Gender`: the network of inaSpeechSegmenter (MIT). 0.7 s of 24 mel bands in, the probability of female and male out.

All are functions of a dictionary of weights, so that a checkpoint needs no class of its own to load.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

SAMPLE_RATE_HZ = 16_000
Weights = Mapping[str, Tensor]
Floats = npt.NDArray[np.float32]


class Segmentation:
    """Local speakers in windows of ten seconds.

    Args:
        weights: state dictionary of pyannote segmentation-3.0.
    """

    window_s = 10.0
    step_s = 270 / SAMPLE_RATE_HZ
    """Time between two frames in seconds."""
    field_s = 991 / SAMPLE_RATE_HZ
    """Time that one frame depends on, in seconds."""
    _members = torch.tensor(
        [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1]],
        dtype=torch.float32,
    )
    """The local speakers of each of the seven classes."""

    def __init__(self, weights: Weights) -> None:
        self._w = {name: value.float() for name, value in weights.items()}
        self._filters = _sinc_filters(self._w)
        self.lstm = torch.nn.LSTM(60, 128, num_layers=4, bidirectional=True, batch_first=True)
        self.lstm.load_state_dict({k[5:]: v for k, v in self._w.items() if k.startswith("lstm.")})
        self.lstm.eval()

    @torch.inference_mode()
    def __call__(self, windows: Floats) -> Floats:
        """Probability of the classes `[windows, frames, 7]` from samples `[windows, n]`."""
        return self.tensor(torch.from_numpy(windows)).numpy()

    def tensor(self, x: Tensor) -> Tensor:
        w = self._w
        x = self._norm(x[:, None], "sincnet.wav_norm1d")
        for layer in range(3):
            if layer == 0:
                x = F.conv1d(x, self._filters, stride=10).abs()
            else:
                x = F.conv1d(
                    x, w[f"sincnet.conv1d.{layer}.weight"], w[f"sincnet.conv1d.{layer}.bias"]
                )
            x = F.leaky_relu(self._norm(F.max_pool1d(x, 3), f"sincnet.norm1d.{layer}"))
        x, _ = self.lstm(x.transpose(1, 2))
        for layer in range(2):
            x = F.leaky_relu(F.linear(x, w[f"linear.{layer}.weight"], w[f"linear.{layer}.bias"]))
        return F.linear(x, w["classifier.weight"], w["classifier.bias"]).softmax(-1)

    def _norm(self, x: Tensor, name: str) -> Tensor:
        """Instance normalisation over time, spelled out so that its export takes any length."""
        centred = x - x.mean(-1, keepdim=True)
        scale = torch.rsqrt(centred.square().mean(-1, keepdim=True) + 1e-5)
        return (
            centred * scale * self._w[f"{name}.weight"][:, None] + self._w[f"{name}.bias"][:, None]
        )

    @classmethod
    def speakers(cls, classes: Floats) -> Floats:
        """Probability of each local speaker `[..., 3]` from that of the classes `[..., 7]`."""
        return classes @ cls._members.numpy()


def _sinc_filters(w: Weights) -> Tensor:
    """Band-pass filters `[80, 1, 251]`: 40 even ones, then 40 odd ones over the same bands."""
    bank = "sincnet.conv1d.0.filterbank."
    low = 50 + w[bank + "low_hz_"].abs()
    high = (low + 50 + w[bank + "band_hz_"].abs()).clamp(50, SAMPLE_RATE_HZ / 2)
    time, window, width = w[bank + "n_"], w[bank + "window_"], high - low
    even = (torch.sin(high @ time) - torch.sin(low @ time)) / (time / 2) * window
    odd = (torch.cos(low @ time) - torch.cos(high @ time)) / (time / 2) * window
    filters = torch.cat(
        [
            torch.cat([even, 2 * width, even.flip(1)], 1),
            torch.cat([odd, torch.zeros_like(width), -odd.flip(1)], 1),
        ]
    )
    return (filters / torch.cat([2 * width, 2 * width]))[:, None]


class SpeakerEmbedding:
    """A speaker embedding of a stretch of speech.

    Args:
        weights: state dictionary of CAM++.
    """

    size = 192
    _blocks = ((12, 1), (24, 2), (16, 2))
    """Layers and dilation of each block."""

    def __init__(self, weights: Weights) -> None:
        self._w = {
            name: value.float() for name, value in weights.items() if "num_batches" not in name
        }

    @torch.inference_mode()
    def __call__(self, banks: Floats) -> Floats:
        """Embeddings `[clips, 192]` from filter banks `[clips, frames, 80]` of at most 2 s, each band's mean taken off.

        Their length is not one.
        """
        return self.tensor(torch.from_numpy(banks)).numpy()

    def tensor(self, x: Tensor) -> Tensor:
        x = self._head(x.transpose(1, 2))
        x = F.conv1d(x, self._w["xvector.tdnn.linear.weight"], stride=2, padding=2)
        x = F.relu(self._norm(x, "xvector.tdnn.nonlinear.batchnorm"))
        for number, (layers, dilation) in enumerate(self._blocks, start=1):
            for layer in range(1, layers + 1):
                x = torch.cat(
                    [x, self._dense(x, f"xvector.block{number}.tdnnd{layer}", dilation)], dim=1
                )
            x = F.relu(self._norm(x, f"xvector.transit{number}.nonlinear.batchnorm"))
            x = F.conv1d(x, self._w[f"xvector.transit{number}.linear.weight"])
        x = F.relu(self._norm(x, "xvector.out_nonlinear.batchnorm"))
        mean = x.mean(-1, keepdim=True)
        spread = ((x - mean).square().sum(-1) / (x.shape[-1] - 1)).sqrt()
        x = torch.cat([mean[..., 0], spread], dim=1)
        x = F.linear(x, self._w["xvector.dense.linear.weight"][..., 0])
        return self._norm(x, "xvector.dense.nonlinear.batchnorm")

    def _norm(self, x: Tensor, name: str) -> Tensor:
        w = self._w
        return F.batch_norm(
            x,
            w[f"{name}.running_mean"],
            w[f"{name}.running_var"],
            w.get(f"{name}.weight"),
            w.get(f"{name}.bias"),
        )

    def _head(self, x: Tensor) -> Tensor:
        """Residual convolutions over bands and frames: `[clips, 80, frames]` to `[clips, 320, frames]`."""
        w = self._w
        x = F.relu(self._norm(F.conv2d(x[:, None], w["head.conv1.weight"], padding=1), "head.bn1"))
        for layer in (1, 2):
            for block in (0, 1):
                name, stride = f"head.layer{layer}.{block}", (2 - block, 1)
                y = F.conv2d(x, w[f"{name}.conv1.weight"], stride=stride, padding=1)
                y = F.relu(self._norm(y, f"{name}.bn1"))
                y = self._norm(F.conv2d(y, w[f"{name}.conv2.weight"], padding=1), f"{name}.bn2")
                if block == 0:
                    x = F.conv2d(x, w[f"{name}.shortcut.0.weight"], stride=stride)
                    x = self._norm(x, f"{name}.shortcut.1")
                x = F.relu(x + y)
        x = F.conv2d(x, w["head.conv2.weight"], stride=(2, 1), padding=1)
        x = F.relu(self._norm(x, "head.bn2"))
        return x.flatten(1, 2)

    def _dense(self, x: Tensor, name: str, dilation: int) -> Tensor:
        """One layer of a block: a convolution over time, weighted by the mean of the clip.

        The network as published adds the mean of each 2 s to the mean of all: the same thing up to 2 s.
        """
        w = self._w
        x = F.relu(self._norm(x, f"{name}.nonlinear1.batchnorm"))
        x = F.conv1d(x, w[f"{name}.linear1.weight"])
        x = F.relu(self._norm(x, f"{name}.nonlinear2.batchnorm"))
        context = 2 * x.mean(-1, keepdim=True)
        local = F.conv1d(
            x, w[f"{name}.cam_layer.linear_local.weight"], padding=dilation, dilation=dilation
        )
        context = F.relu(
            F.conv1d(
                context, w[f"{name}.cam_layer.linear1.weight"], w[f"{name}.cam_layer.linear1.bias"]
            )
        )
        gate = F.conv1d(
            context, w[f"{name}.cam_layer.linear2.weight"], w[f"{name}.cam_layer.linear2.bias"]
        )
        return local * torch.sigmoid(gate)


class Gender:
    """Female or male, of patches of speech.

    Args:
        weights: `conv2d_1` to `_5`, `dense_1` to `_5` and `batch_normalization_1` to `_9`, as Keras stores them.
    """

    shape = (68, 24)
    """Frames, 10 ms apart, and mel bands of a patch."""

    def __init__(self, weights: Weights) -> None:
        order = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}  # Keras: inputs before outputs
        self._w = {
            name: value.float().permute(order[value.ndim]).contiguous()
            for name, value in weights.items()
        }

    def tensor(self, x: Tensor) -> Tensor:
        """Probabilities of female and male `[patches, 2]` of patches `[patches, 68, 24]` of mean 0 and variance 1."""
        w = self._w
        x = x[:, None]
        for layer in range(1, 6):
            name = f"conv2d_{layer}"
            x = F.relu(self._norm(F.conv2d(x, w[f"{name}.kernel"], w[f"{name}.bias"]), layer))
            if layer == 2:
                x = F.max_pool2d(x, (1, 2))
            elif layer == 4:
                x = F.max_pool2d(x, 2)
        x = x.amax(dim=2).flatten(1)
        for layer in range(1, 5):
            x = F.linear(x, w[f"dense_{layer}.kernel"], w[f"dense_{layer}.bias"])
            x = F.relu(self._norm(x, layer + 5))
        return F.linear(x, w["dense_5.kernel"], w["dense_5.bias"]).softmax(-1)

    def _norm(self, x: Tensor, number: int) -> Tensor:
        name, w = f"batch_normalization_{number}", self._w
        statistics = w[f"{name}.moving_mean"], w[f"{name}.moving_variance"]
        return F.batch_norm(x, *statistics, w[f"{name}.gamma"], w[f"{name}.beta"], eps=1e-3)
