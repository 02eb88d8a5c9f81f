"""Corpora that lhotse reads: its manifests as recordings and rows; no layout is known here but lhotse's.

    for recording in recordings("chime6", source):

CHiME-6        CHiME6/{audio,transcriptions}/{train,dev,eval}/S02_U01.CH1.wav, S02.json; all 20 sessions
DiPCo          {audio,transcriptions}/{dev,eval}/S02_U01.CH1.wav, S02.json; all 10 sessions
ICSI           the mix of headsets as **/Bmr001/*.wav, and `transcripts`; its single channels are compressed
               SPHERE files, which have to be converted first (`folder` reads what comes of that)
LibriCSS       for_release/{0L,0S,OV10,...}/*/record/raw_recording.wav (7 channels); session0 is dev
NOTSOFAR-1     benchmark-datasets/{train_set,dev_set,eval_set}/VERSION/MTG/MTG_30830/{sc_plaza_0,...}/ch0.wav
VoxConverse    {dev,test}/abjxc.{wav,rttm}; it has no words

An array gives its first channel. Text is as annotated, without marks of sounds (`Cleaning`). lhotse logs a warning
about what it leaves out; the notes count these.
"""

import logging
import re
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ... import extras
from ...errors import DataError
from ...formats.sessions import parse_gender
from .notes import AnnotationRow, CorpusRecording, Notes

_SPLITS = {
    "train": "train",
    "train_set": "train",
    "dev": "dev",
    "dev_set": "dev",
    "eval": "test",
    "eval_set": "test",
    "test": "test",
}
_Parts = Iterator[tuple[str, Any, Any]]
"""Name of a part, its recordings and its supervisions."""


@dataclass(frozen=True, slots=True)
class Known:
    """A corpus that lhotse has a recipe for, and the call of that recipe.

    Attributes:
        module: of `lhotse.recipes`.
        parts: calls it; gets the module, the corpus' folder and a folder that is deleted later.
        layout: what lhotse expects in the folder, for messages.
    """

    module: str
    parts: Callable[[Any, Path, Path], _Parts]
    layout: str


def _by_part(manifests: Mapping[str, Any]) -> _Parts:
    for part, both in manifests.items():
        yield part, both["recordings"], both["supervisions"]


def _notsofar(module: Any, folder: Path, scratch: Path) -> _Parts:
    for part, versions in module.prepare_notsofar1(folder, scratch).items():
        for kinds in versions.values():
            if "single_channel" in kinds:
                one = kinds["single_channel"]
                yield part, one["recordings"], one["supervisions"]


def _libricss(module: Any, folder: Path, _: Path) -> _Parts:
    made = module.prepare_libricss(folder, type="mdm")
    for split, is_dev in (("dev", True), ("test", False)):
        own = [r for r in made["recordings"] if r.id.endswith("session0") == is_dev]
        yield split, own, made["supervisions"]


KNOWN: Mapping[str, Known] = {
    "chime6": Known(
        "chime6",
        lambda m, folder, _: _by_part(m.prepare_chime6(folder, normalize_text="none")),
        "audio/ and transcriptions/ with all 20 sessions, synchronised",
    ),
    "dipco": Known(
        "dipco",
        lambda m, folder, _: _by_part(m.prepare_dipco(folder, normalize_text="none")),
        "audio/ and transcriptions/ with all 10 sessions",
    ),
    "icsi-ihm-mix": Known(
        "icsi",
        lambda m, folder, _: _by_part(m.prepare_icsi(folder, mic="ihm-mix", normalize_text="none")),
        "transcripts/ and mixes such as Bmr001/mix.wav below",
    ),
    "libricss": Known("libricss", _libricss, "for_release/ with 0L, 0S, OV10, OV20, OV30, OV40"),
    "notsofar1-sc": Known(
        "notsofar1", _notsofar, "benchmark-datasets/ with parts such as dev_set/VERSION/MTG"
    ),
    "voxconverse": Known(
        "voxconverse",
        lambda m, folder, _: _by_part(m.prepare_voxconverse(folder)),
        "dev/ and test/, each with recordings and an RTTM beside each",
    ),
}
"""Corpora by the names of `recipes.CORPORA`."""

TAGS = re.compile(r"\[[a-z ]+\]|<[^<>]*>")
"""Marks of CHiME-6 and DiPCo (`[laughs]`) and of NOTSOFAR-1 (`<ST/>`) that are no words."""


def recordings(corpus: str, folder: Path, notes: Notes) -> Iterator[CorpusRecording]:
    """Read a corpus by lhotse.

    Args:
        corpus: a key of `KNOWN`.
        folder: of the corpus, as it is unpacked.
        notes: counts what cannot be used.

    Raises:
        DataError: it is not there as lhotse expects it.
        ExtraError: lhotse is not installed.
    """
    known = KNOWN[corpus]
    module = extras.load(f"lhotse.recipes.{known.module}", "corpora", f"preparing {corpus}")
    with tempfile.TemporaryDirectory() as scratch, _logged(notes):
        try:
            parts = list(known.parts(module, folder, Path(scratch)))
        except (AssertionError, OSError, LookupError, ValueError, RuntimeError) as error:
            reason = (str(error).strip() or "a file is missing").splitlines()[0]
            raise DataError(
                f"{folder}: expected {known.layout}; lhotse cannot read it as {corpus}: "
                f"{type(error).__name__}: {reason[:300]}"
            ) from error
    empty = True
    for part, sounds, supervisions in parts:
        rows = defaultdict(list)
        for number, one in enumerate(supervisions, start=1):
            rows[one.recording_id].append(
                AnnotationRow(
                    f"{corpus} {part}, supervision {number} ({one.id})",
                    one.recording_id,
                    str(one.speaker),
                    parse_gender(str(one.gender or "")),
                    float(one.start),
                    float(one.start + one.duration),
                    one.text or "",
                )
            )
        for sound in sounds:
            empty = False
            path = Path(min(sound.sources, key=lambda source: source.channels).source)
            if sound.id not in rows:
                notes.drop("annotation missing", f"{path}: no supervision of {sound.id}")
                continue
            yield CorpusRecording(
                _SPLITS.get(part, part), sound.id, (path.absolute(),), tuple(rows.pop(sound.id))
            )
    if empty:
        raise DataError(f"{folder}: no recordings of {corpus}; expected {known.layout}")


@contextmanager
def _logged(notes: Notes) -> Iterator[None]:
    """Count the warnings that lhotse logs while it reads."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            notes.drop("left out by lhotse", f"lhotse: {record.getMessage()}", fault=False)

    handler = Handler(logging.WARNING)
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
