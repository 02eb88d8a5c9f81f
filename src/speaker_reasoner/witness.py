"""The second witness: whose voice is it, asked of another model than the one that writes.

A `Witness` gives each clip a point on a sphere; clips of one voice lie close together. With nothing
installed it is the checkpoint's own audio tower (`TowerWitness`), with a model at hand one that was
trained for this alone, on real voices (`ResemblyzerWitness`, `XVectorWitness`, `SpeechBrainWitness`).

Does not know labels, times or names.
"""

import importlib
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from .audio import SAMPLE_RATE_HZ, Samples
from .errors import CheckpointError, SettingsError

if TYPE_CHECKING:
    from .engines.checkpoint import Checkpoint

Points = npt.NDArray[np.float32]
"""Voice embeddings `[n, d]`, rows of length 1."""

WITNESSES = ("tower", "resemblyzer", "xvector", "speechbrain", "none")

_BATCH_S = 60.0
_SETTLE_S = 0.1
"""Of models that nobody calibrated: little, so that long stretches are held to hardly more than the
sentences of which their thresholds are known."""
_DOUBT = 0.2
"""What noise would have to take of a cosine to halve what it says."""
_RESEMBLYZER_DBFS = -30
_SHORTEST_SAMPLES = SAMPLE_RATE_HZ
"""Models trained on whole sentences get no less than this; a shorter clip is repeated."""


@dataclass(frozen=True, slots=True)
class Scatter:
    """How points of one recording scatter: variances, over all dimensions together.

    Attributes:
        spread: of people's own points about their mean.
        noise: of points of one second about their person's.
    """

    spread: float
    noise: float


class Witness(Protocol):
    """Tells voices apart.

    Attributes:
        name: what a transcript records.
        threshold: cosine of two long stretches of one recording at which one voice and two are as
            likely.
        elsewhere: that of two stretches of different recordings.
        scale: log-odds for one voice that a unit of cosine is worth between long stretches.
        settle_s: how much a short stretch scatters: of two of T seconds, the expected cosine is
            `1 / (1 + settle_s / T)` of that of long ones (see `log_odds`).
        scatter: of points within a chunk; `None` where nobody measured it, and cosines group lines.
    """

    name: str
    threshold: float
    elsewhere: float
    scale: float
    settle_s: float
    scatter: Scatter | None

    def embed(self, clips: Sequence[Samples]) -> Points:
        """Embed clips, each float32 `[n]` at 16 kHz and of one voice, whatever else is in the list.

        Returns:
            `[clips, d]`, rows of length 1.
        """


def log_odds(
    cosines: Any, seconds: Any, others: Any, *, threshold: Any, scale: Any, settle_s: Any
) -> Any:
    """Log-odds that two stretches of speech are of one voice.

    A point of T seconds is that of the voice and noise, whose square falls as 1 / T: the cosine
    expected of two is that of long ones times `((1 + settle_s / T1) (1 + settle_s / T2)) ** -0.5`.
    The threshold falls with it, and the less is left of it the less a cosine says.

    Args:
        cosines, seconds, others: arrays or tensors of one shape, or numbers: of both stretches.
        threshold, scale, settle_s: see `Witness`.
    """
    settled = ((1 + settle_s / seconds) * (1 + settle_s / others)) ** -0.5
    sure = _DOUBT / (1 - settled + _DOUBT)
    return scale * sure * (cosines - threshold * settled)


def choose(name: str, checkpoint: "Checkpoint") -> Witness | None:
    """A witness by name: `tower`, `resemblyzer`, `xvector[=MODEL]`, `speechbrain[=MODEL]`, or `none`.

    Args:
        name: MODEL is a local folder or a hub id.
        checkpoint: whose tower is asked, and whose device is used.

    Raises:
        SettingsError: there is no witness of that name.
        CheckpointError: its model or its package cannot be used.
    """
    kind, _, model = name.partition("=")
    device = str(checkpoint.thinker.device)
    match kind:
        case "none" if not model:
            return None
        case "tower" if not model:
            return TowerWitness(checkpoint)
        case "resemblyzer" if not model:
            return ResemblyzerWitness(device)
        case "xvector":
            return XVectorWitness(model or "microsoft/wavlm-base-plus-sv", device)
        case "speechbrain":
            return SpeechBrainWitness(model or "speechbrain/spkrec-ecapa-voxceleb", device)
    raise SettingsError(
        f"witness {name!r}: expected one of {', '.join(WITNESSES)}; xvector and speechbrain take a "
        "model, as in xvector=FOLDER"
    )


class TowerWitness:
    """Asks the checkpoint's own audio tower.

    With a voice head beside the checkpoint (see `engines.voice`) the point is the head's, which may hear
    by a tower that learned voices. Without one it is the mean of the tower's embeddings: these were
    made for words, so that it tells women from men rather than one woman from another (equal error
    rate on held-out simulated voices, in clips of 1 to 4 s: 4 % across, 22 % within gender), and
    threshold and scale, measured on the embedded checkpoint, need not fit another one.
    """

    def __init__(self, checkpoint: "Checkpoint") -> None:
        from .engines.voice import VOICE_FILE, load_voice_head, tower_width

        self._thinker, self._extractor = checkpoint.thinker, checkpoint.extractor
        head = None
        if checkpoint.folder is not None:
            head = load_voice_head(checkpoint.folder, self._thinker)
        self.name = "tower" if head is None else "tower with voice head"
        self.threshold = self.elsewhere = 0.54
        self.scale, self.settle_s = 26.0, _SETTLE_S
        self.scatter: Scatter | None = None
        self._head = None
        if head is not None:
            self._thinker = head.hearing(self._thinker)
            width, expected = head.frames.in_features, tower_width(self._thinker)
            if width != expected:
                raise CheckpointError(
                    f"{checkpoint.folder}/{VOICE_FILE}: a voice head for frames of {width} numbers; "
                    f"this audio tower gives {expected}; train stage 3's voice head again, or delete "
                    "the file to compare voices by the tower alone"
                )
            self.scale = float(head.slope.exp())
            self.threshold, self.elsewhere = float(head.threshold), float(head.elsewhere)
            self.settle_s = float(head.settle_s)
            if float(head.spread):
                self.scatter = Scatter(float(head.spread), float(head.noise))
            self._head = head.to(self._thinker.device)

    def embed(self, clips: Sequence[Samples]) -> Points:
        """See `Witness`. Clips of like length share a batch."""
        import torch

        order = sorted(range(len(clips)), key=lambda i: len(clips[i]))
        found: dict[int, Points] = {}
        with torch.inference_mode():
            for batch in _batches(order, [len(clip) for clip in clips]):
                points = self._encode([clips[i] for i in batch])
                found.update(zip(batch, points, strict=True))
        return _on_sphere([found[i] for i in range(len(clips))])

    def _encode(self, clips: Sequence[Samples]) -> Points:
        import torch

        from .engines.pitch import melodies
        from .engines.thinker import encode_audio, log_mel
        from .engines.voice import tower_layers

        features, mask = log_mel(self._extractor, clips)
        device = self._thinker.device
        features, mask = features.to(device, self._thinker.dtype), mask.to(device)
        if self._head is not None:
            sung = torch.from_numpy(melodies(clips)).to(device)
            points = self._head(tower_layers(self._thinker, features, mask), sung)
        else:
            heard = encode_audio(self._thinker, features, mask)
            points = torch.stack([frames.float().mean(0) for frames in heard])
        return np.asarray(points.float().cpu().numpy())


def _batches(order: Iterable[int], lengths: Sequence[int]) -> Iterable[list[int]]:
    """Cut indices, by rising length, into batches of at most `_BATCH_S` after padding."""
    batch: list[int] = []
    for i in order:
        if batch and (len(batch) + 1) * lengths[i] > _BATCH_S * SAMPLE_RATE_HZ:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


class ResemblyzerWitness:
    """The voice encoder of Resemblyzer (extra `resemblyzer`): its weights come with the package.

    Trained on real voices (GE2E: Wan et al., ICASSP 2018). Threshold, scale and settling were chosen
    on simulated development meetings (docs/whole-meetings.md).

    Args:
        device: as torch names it.

    Raises:
        CheckpointError: Resemblyzer is not installed, or cannot be loaded.
    """

    name = "resemblyzer"
    threshold, elsewhere, scale, settle_s = 0.82, 0.82, 50.0, 0.9
    scatter: Scatter | None = None

    def __init__(self, device: str = "cpu") -> None:
        try:
            with warnings.catch_warnings():  # about what it imports from other packages
                warnings.simplefilter("ignore")
                package = importlib.import_module("resemblyzer")
                self._louder = importlib.import_module("resemblyzer.audio").normalize_volume
        except ImportError as error:
            raise CheckpointError(
                f"witness resemblyzer: {error}; pip install 'speaker-reasoner[resemblyzer]'"
            ) from error
        self._encoder: Any = package.VoiceEncoder(device, verbose=False)

    def embed(self, clips: Sequence[Samples]) -> Points:
        """See `Witness`. Quiet clips are made louder, as in its training; silence has no voice: zeros."""
        return _on_sphere([self._heard(_long_enough(clip)) for clip in clips])

    def _heard(self, clip: Samples) -> Points:
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

    threshold, elsewhere, scale, settle_s = 0.88, 0.88, 50.0, _SETTLE_S
    scatter: Scatter | None = None

    def __init__(self, model: str | Path, device: str = "cpu") -> None:
        from transformers import AutoFeatureExtractor, AutoModelForAudioXVector

        self.name = f"xvector={model}"
        try:
            self._extractor = AutoFeatureExtractor.from_pretrained(model)
            loaded, info = AutoModelForAudioXVector.from_pretrained(model, output_loading_info=True)
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
        """See `Witness`. Clips are heard one by one: these models are not blind to padding."""
        import torch

        rows = []
        with torch.inference_mode():
            for clip in clips:
                heard = self._extractor(
                    _long_enough(clip), sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt"
                ).to(self._model.device)
                rows.append(self._model(**heard).embeddings[0].float().cpu().numpy())
        return _on_sphere(rows)


class SpeechBrainWitness:
    """A speaker model of SpeechBrain, such as ECAPA-TDNN (extra `speechbrain`).

    The threshold is the one that SpeechBrain verifies with; the scale is assumed.

    Args:
        model: local folder with `hyperparams.yaml`, or hub id. The file may name any code to be
            run: use only folders you trust.
        device: as torch names it.

    Raises:
        CheckpointError: SpeechBrain is not installed, or cannot load the model.
    """

    threshold, elsewhere, scale, settle_s = 0.26, 0.26, 35.0, _SETTLE_S
    scatter: Scatter | None = None

    def __init__(self, model: str | Path, device: str = "cpu") -> None:
        self.name = f"speechbrain={model}"
        try:
            classifiers = importlib.import_module("speechbrain.inference.classifiers")
        except ImportError as error:
            raise CheckpointError(
                f"witness {self.name}: {error}; pip install 'speaker-reasoner[speechbrain]', with a "
                "torchaudio that fits your torch"
            ) from error
        local = Path(model).expanduser().is_dir()
        # A published hyperparams.yaml names the hub for its weights, wherever it lies itself.
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
                heard = torch.from_numpy(_long_enough(clip))[None]  # [1, samples]
                rows.append(self._model.encode_batch(heard)[0, 0].float().cpu().numpy())
        return _on_sphere(rows)


def _unusable(kind: str, model: str | Path, error: Exception) -> str:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"witness {kind}={model}: cannot be loaded: {reason}; give a local folder or a hub id"


def _long_enough(clip: Samples) -> Samples:
    missing = _SHORTEST_SAMPLES - len(clip)
    return np.pad(clip, (0, missing), mode="wrap") if missing > 0 else clip


def _on_sphere(rows: Sequence[Points]) -> Points:
    if not rows:
        return np.zeros((0, 1), dtype=np.float32)
    points = np.stack(rows).astype(np.float32)
    lengths = np.linalg.norm(points, axis=1, keepdims=True)
    return np.asarray(points / np.maximum(lengths, 1e-9), dtype=np.float32)
