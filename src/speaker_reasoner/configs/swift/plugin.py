"""A plug-in of ms-swift 4.6 for the dialogues: `--external_plugins plugin.py`. It runs in ms-swift's environment
and does not import speaker_reasoner.

Template `speaker_reasoner` is the built-in `qwen3_omni` with three changes, so that ms-swift teaches the same tokens
as `speaker-reasoner train`: no newline is taught after a turn's `<|im_end|>`, the thoughts of earlier turns are
kept, and the model may be the full one with its talker or a thinker alone.

Model type `speaker_reasoner_thinker` is a thinker alone, as `speaker-reasoner train` and `merge` write
it. ms-swift recognises it by its class. Its processor takes audio only and needs neither qwen_omni_utils nor
torchvision.

Tuner `speaker_reasoner` is LoRA on the attention of the thinker's text model. ms-swift's own (`lora`) would leave out
audio tower and talker, but peft 0.20 takes every Qwen3-Omni model for an older mixture of experts and keeps only the
ends of the modules' names, so that modules of the same names in tower and talker are adapted, too.
"""

# mypy: disable-error-code="import-not-found,import-untyped,misc"

import re
from types import SimpleNamespace
from typing import Any

from peft import LoraConfig, get_peft_model
from swift.model import ModelLoader, ModelMeta, MultiModelKeys, register_model, register_model_arch
from swift.template import register_template
from swift.template.templates.qwen import Qwen3OmniTemplate, QwenTemplateMeta
from swift.template.vision_utils import load_audio
from swift.tuner_plugin import PeftTuner, tuners_map
from transformers import (
    AutoTokenizer,
    BatchFeature,
    ProcessorMixin,
    Qwen3OmniMoeThinkerForConditionalGeneration,
    WhisperFeatureExtractor,
)

TEMPLATE = TUNER = "speaker_reasoner"
THINKER = "speaker_reasoner_thinker"
SAMPLE_RATE_HZ = 16_000
ADAPTED = re.compile(r"(thinker\.)?model\.layers\.\d+\.self_attn\.[qkvo]_proj")


class DialogueTemplate(Qwen3OmniTemplate):
    """The built-in template, for audio alone, over a full model or over its thinker."""

    config: Any

    def init_processor(self, processor: Any) -> None:
        super().init_processor(processor)
        if not hasattr(self.config, "thinker_config"):
            self.config = SimpleNamespace(thinker_config=self.config)

    def replace_tag(self, media_type: str, index: int, inputs: Any) -> list[str]:
        if media_type != "audio":
            raise ValueError(f"got <{media_type}>, expected <audio>: dialogues hold no other media")
        inputs.audios[index] = load_audio(inputs.audios[index], SAMPLE_RATE_HZ)
        return ["<|audio_start|><|audio_pad|><|audio_end|>"]

    def _get_get_rope_index(self) -> Any:
        model = self._get_model()
        return getattr(model, "thinker", model).get_rope_index


class AudioProcessor(ProcessorMixin):
    """Tokenizer and feature extractor; transformers' own class asks for image processors, too."""

    def __init__(
        self, feature_extractor: Any = None, tokenizer: Any = None, chat_template: str | None = None
    ) -> None:
        super().__init__(feature_extractor, tokenizer, chat_template=chat_template)

    def __call__(self, text: str, audio: Any = None, **_: Any) -> BatchFeature:
        """Features `[N, mels, frames]` of clips, none of them cut."""
        inputs = dict(self.tokenizer(text, return_tensors="pt"))
        if audio:
            features = self.feature_extractor(
                audio,
                sampling_rate=SAMPLE_RATE_HZ,
                padding=True,
                truncation=False,
                return_attention_mask=True,
                return_tensors="pt",
            )
            inputs["input_features"] = features["input_features"]
            inputs["feature_attention_mask"] = features["attention_mask"]
        return BatchFeature(inputs)


class ThinkerLoader(ModelLoader):
    """Loads a folder that `speaker-reasoner train` or `merge` wrote."""

    def get_model(self, *arguments: Any, **settings: Any) -> Any:
        self.auto_model_cls = Qwen3OmniMoeThinkerForConditionalGeneration
        return super().get_model(*arguments, **settings)

    def get_processor(self, model_dir: str, config: Any) -> AudioProcessor:
        tokenizer = AutoTokenizer.from_pretrained(model_dir)
        return AudioProcessor(WhisperFeatureExtractor.from_pretrained(model_dir), tokenizer)


class TextLora(PeftTuner):
    """LoRA under whole names of modules, which peft leaves as they are."""

    @staticmethod
    def prepare_model(args: Any, model: Any) -> Any:
        settings = LoraConfig(
            task_type="CAUSAL_LM",
            r=args.lora_rank,
            lora_alpha=args.lora_alpha,
            lora_dropout=args.lora_dropout,
            target_modules=[name for name, _ in model.named_modules() if ADAPTED.fullmatch(name)],
        )
        return get_peft_model(model, settings)

    @staticmethod
    def save_pretrained(
        model: Any, save_directory: str, state_dict: Any = None, **settings: Any
    ) -> None:
        model.save_pretrained(save_directory, state_dict=state_dict, **settings)


tuners_map[TUNER] = TextLora
register_template(
    QwenTemplateMeta(
        TEMPLATE,
        template_cls=DialogueTemplate,
        default_system=None,
        suffix=["<|im_end|>"],
        preserve_thinking=True,
    )
)
register_model_arch(
    MultiModelKeys(
        THINKER,
        language_model=["model", "lm_head"],
        vision_tower=["audio_tower", "visual"],
        aligner=["audio_tower.proj1", "audio_tower.proj2", "visual.merger", "visual.merger_list"],
    )
)
register_model(
    ModelMeta(
        THINKER,
        [],
        ThinkerLoader,
        template=TEMPLATE,
        model_arch=THINKER,
        architectures=["Qwen3OmniMoeThinkerForConditionalGeneration"],
        is_multimodal=True,
        requires=["soundfile"],
    )
)
