"""Speech models in this process by transformers' own classes: a transcription request in, raw text out."""

from importlib.metadata import version
from typing import Any

from ..audio import SAMPLE_RATE_HZ
from ..errors import AnswerError, CheckpointError, EngineError
from ..transcript import Transcript
from .base import MOST_TOKENS, Answer, Sound, SystemOptions, Usage


class HubModel:
    """A model whose processor has `apply_transcription_request`.

    The processor's own parser is not used: it drops the end of a cut answer, and takes `[2024]` for a time.

    Args:
        name: of the system.
        model: hub id or folder, where the options name none.
        class_name: of the model, in transformers.
        hints: the request's keyword for hotwords.
        options: see `SystemOptions`.

    Raises:
        CheckpointError: the model cannot be loaded.
    """

    def __init__(
        self, name: str, model: str, class_name: str, hints: str, options: SystemOptions
    ) -> None:
        import torch
        import transformers

        self.name = name
        self.model = options.model or model
        self.options = options
        self._hints = hints
        self._device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            self._processor: Any = transformers.AutoProcessor.from_pretrained(self.model)
            self._model: Any = getattr(transformers, class_name).from_pretrained(
                self.model, dtype="auto"
            )
        except (OSError, ValueError, ImportError, AttributeError) as error:
            said = str(error).strip().splitlines()[0][:200]
            raise CheckpointError(
                f"{self.model}: cannot be loaded as {class_name}: {said}"
            ) from error
        self._model.to(self._device).eval()

    def describe(self) -> dict[str, Any]:
        """See `System`."""
        return {
            "model": self.model,
            "hotwords": self.options.hotwords,
            "device": self._device,
            "dtype": str(self._model.dtype),
            "max_tokens": MOST_TOKENS,
            "sdk": {"name": "transformers", "version": version("transformers")},
        }

    def ask(self, sound: Sound) -> Answer:
        """See `System`."""
        import torch

        rate_hz = int(self._processor.feature_extractor.sampling_rate)
        hints = {self._hints: self._hotwords()} if self.options.hotwords else {}
        inputs = self._processor.apply_transcription_request(
            _at(sound, rate_hz), return_tensors="pt", sampling_rate=rate_hz, **hints
        )
        inputs = inputs.to(self._device, self._model.dtype)
        try:
            with torch.inference_mode():
                ids = self._model.generate(**inputs, max_new_tokens=MOST_TOKENS, do_sample=False)
        except torch.OutOfMemoryError as error:
            raise EngineError(f"{self.name}: {str(error).splitlines()[0]}") from error
        made = ids[0, inputs["input_ids"].shape[1] :]
        raw = {
            "text": self._processor.decode(made, skip_special_tokens=True),
            "finish_reason": "length" if len(made) >= MOST_TOKENS else "stop",
        }
        usage = Usage(input_tokens=int(inputs["input_ids"].shape[1]), output_tokens=len(made))
        return Answer(raw, self.model, self.options.hotwords, usage)

    def _hotwords(self) -> Any:
        """The hotwords in the form that the request takes."""
        return self.options.hotwords

    def read(self, answer: Answer, sound: Sound) -> Transcript:
        """See `System`."""
        raise NotImplementedError

    def close(self) -> None:
        """See `System`."""


def whole_text(raw: Any) -> str:
    """The text of an answer that is whole.

    Raises:
        AnswerError: `truncated`: it ended at the limit of tokens.
    """
    if raw["finish_reason"] == "length":
        raise AnswerError("truncated", "the answer ended at the limit of tokens")
    return str(raw["text"])


def _at(sound: Sound, rate_hz: int) -> Any:
    """The samples at the rate of a model."""
    if rate_hz == SAMPLE_RATE_HZ:
        return sound.samples
    import soxr

    return soxr.resample(sound.samples, SAMPLE_RATE_HZ, rate_hz)
