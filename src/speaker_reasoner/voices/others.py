"""Speaker embedding models of other packages: Resemblyzer, transformers' x-vector models, SpeechBrain."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import extras
from ..audio import SAMPLE_RATE_HZ, Samples
from ..errors import CheckpointError
from .witness import Points, Scatter, on_sphere

SETTLE_S = 0.1
"""For models that were not calibrated here (assumed). It is small, because their thresholds were published
for sentences: long stretches must not need a much higher cosine."""

_RESEMBLYZER_DBFS = -30
"""Level that Resemblyzer's own preprocessing raises a clip to."""
_SHORTEST_SAMPLES = SAMPLE_RATE_HZ
"""Least input of models that were trained on whole sentences; a shorter clip is repeated."""


class ResemblyzerWitness:
    """The voice encoder of Resemblyzer (extra `resemblyzer`): its weights come with the package.

    Trained on real voices (GE2E: Wan et al., ICASSP 2018). Threshold, scale and settling were chosen
    on simulated meetings, of 24 settings (docs/experiments.md, 2026-11-23).

    Args:
        device: as torch names it.

    Raises:
        ExtraError: Resemblyzer is not installed.
    """

    name = "resemblyzer"
    threshold, elsewhere, scale, settle_s = 0.82, 0.82, 50.0, 0.9
    scatter: Scatter | None = None

    def __init__(self, device: str = "cpu") -> None:
        purpose = "the witness resemblyzer"
        with warnings.catch_warnings():  # of the packages that it imports
            warnings.simplefilter("ignore")
            package = extras.load("resemblyzer", "resemblyzer", purpose)
            audio = extras.load("resemblyzer.audio", "resemblyzer", purpose)
        self._louder = audio.normalize_volume
        self._encoder: Any = package.VoiceEncoder(device, verbose=False)

    def embed(self, clips: Sequence[Samples]) -> Points:
        """See `Witness`. Quiet clips are made louder, as in its training; silence gives zeros."""
        return on_sphere([self._embedded(_long_enough(clip)) for clip in clips])

    def _embedded(self, clip: Samples) -> Points:
        if not clip.any():
            return np.zeros(self._encoder.linear.out_features, np.float32)
        louder = self._louder(clip, _RESEMBLYZER_DBFS, increase_only=True)
        return np.asarray(self._encoder.embed_utterance(louder), np.float32)


class XVectorWitness:
    """A speaker verification model of transformers (WavLM, Wav2Vec2, ... with an x-vector head).

    The threshold is the one that comes with `microsoft/wavlm-base-plus-sv`; the scale is assumed.

    Args:
        model: local folder or hub id.
        device: as torch names it.

    Raises:
        CheckpointError: the model cannot be loaded.
    """

    threshold, elsewhere, scale, settle_s = 0.88, 0.88, 50.0, SETTLE_S
    scatter: Scatter | None = None

    def __init__(self, model: str | Path, device: str = "cpu") -> None:
        from transformers import AutoFeatureExtractor, AutoModelForAudioXVector

        self.name = f"xvector={model}"
        try:
            folder = _model_folder(str(model))
            self._extractor = AutoFeatureExtractor.from_pretrained(folder)
            loaded, info = AutoModelForAudioXVector.from_pretrained(
                folder, output_loading_info=True
            )
        except Exception as error:  # a folder can be wrong in as many ways as there are loaders
            raise CheckpointError(_unusable("xvector", model, error)) from error
        if info["missing_keys"]:
            lacking = sorted(info["missing_keys"])
            raise CheckpointError(
                f"witness xvector={model}: {len(lacking)} weights are missing, the first "
                f"{lacking[0]}; expected a model with an x-vector head"
            )
        self._model = loaded.to(device).eval()

    def embed(self, clips: Sequence[Samples]) -> Points:
        """See `Witness`. Clips are embedded one by one: padding changes these models' output."""
        import torch

        rows = []
        with torch.inference_mode():
            for clip in clips:
                inputs = self._extractor(
                    _long_enough(clip), sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt"
                ).to(self._model.device)
                rows.append(self._model(**inputs).embeddings[0].float().cpu().numpy())
        return on_sphere(rows)


class SpeechBrainWitness:
    """A speaker model of SpeechBrain, such as ECAPA-TDNN (extra `speechbrain`).

    The threshold is SpeechBrain's own for verification; the scale is assumed.

    Args:
        model: local folder with `hyperparams.yaml`, or hub id. That file can run any
            code: use only folders you trust.
        device: as torch names it.

    Raises:
        CheckpointError: SpeechBrain cannot load the model.
        ExtraError: SpeechBrain is not installed.
    """

    threshold, elsewhere, scale, settle_s = 0.26, 0.26, 35.0, SETTLE_S
    scatter: Scatter | None = None

    def __init__(self, model: str | Path, device: str = "cpu") -> None:
        self.name = f"speechbrain={model}"
        classifiers = extras.load(
            "speechbrain.inference.classifiers",
            "speechbrain",
            f"the witness {self.name}",
            ", with a torchaudio that fits your torch",
        )
        local = Path(model).expanduser().is_dir()
        # A published hyperparams.yaml loads its weights from the hub, even from a local folder.
        here = {"overrides": {"pretrained_path": str(model)}, "overrides_must_match": False}
        try:
            self._model: Any = classifiers.EncoderClassifier.from_hparams(
                source=str(model), run_opts={"device": device}, **(here if local else {})
            )
        except Exception as error:  # YAML, pickle and network errors, unwrapped
            raise CheckpointError(_unusable("speechbrain", model, error)) from error

    def embed(self, clips: Sequence[Samples]) -> Points:
        """See `Witness`."""
        import torch

        rows = []
        with torch.inference_mode():
            for clip in clips:
                batch = torch.from_numpy(_long_enough(clip))[None]  # [1, samples]
                rows.append(self._model.encode_batch(batch)[0, 0].float().cpu().numpy())
        return on_sphere(rows)


def _model_folder(model: str) -> Path:
    """A local folder, or that of a hub id, downloaded where it is not there yet.

    transformers would look each file up by itself, with several seconds of retries where there is no network.
    """
    from huggingface_hub import snapshot_download

    local = Path(model).expanduser()
    if local.is_dir():
        return local
    for weights in ("*.safetensors", "*.bin"):  # many repositories hold the same weights as both
        folder = Path(snapshot_download(model, allow_patterns=["*.json", weights]))
        if any(folder.glob("*.safetensors")) or any(folder.glob("*.bin")):
            break
    return folder


def _unusable(kind: str, model: str | Path, error: Exception) -> str:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return (
        f"witness {kind}={model}: cannot be loaded: {reason}; give a local folder or a hub id (is there a "
        "network?)"
    )


def _long_enough(clip: Samples) -> Samples:
    missing = _SHORTEST_SAMPLES - len(clip)
    return np.pad(clip, (0, missing), mode="wrap") if missing > 0 else clip
