"""AMI: words and segments of its manual annotation, release 1.6.2 (the folder, or its zip).

    words/ES2002a.A.words.xml          <w nite:id=".." starttime=".." endtime=".." punc="true">
    segments/ES2002a.A.segments.xml    <segment transcriber_start=".." ..><nite:child href="..#id(..)..id(..)"/>
    corpusResources/meetings.xml       <meeting observation="ES2002a"><speaker nxt_agent="A" global_name="FEE005"/>

A row is a segment of the transcriber: its text the words that it refers to, punctuation attached and
case kept, its times those of the first and last of them (tighter than the transcriber's, which stand
in where a word has none). Elements that are no words (`vocalsound`, `disfmarker`, `gap`, ...) become tags in
the text, `<vocalsound laugh>`. The first letter of a participant's global name is the gender.

Differs from lhotse's recipe: that takes the words whose times lie inside a segment's, so that a word
across its edge or without a time is lost silently, and cuts segments at full stops.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path
from xml.parsers import expat
from zipfile import BadZipFile
from zipfile import Path as ZipPath

from ...errors import DataError, FormatError
from .formats import gender_of
from .notes import AnnotationRow, Notes

RELEASE = "ami_public_manual_1.6.2"
_ID = re.compile(r"id\(([^)]*)\)")


@dataclass(slots=True)
class _Element:
    """An XML element that stands right under the root."""

    name: str
    attributes: dict[str, str]
    line: int
    text: str = ""
    children: tuple[dict[str, str], ...] = ()


def annotation(folder: Path) -> Traversable:
    """The folder of the annotation: in or beside the corpus, unpacked or as the zip.

    Raises:
        DataError: it is not there, or is no zip.
    """
    for place in (folder / RELEASE, folder, folder.parent / RELEASE):
        if (place / "words").is_dir() and (place / "segments").is_dir():
            return place
    for zipped in (folder / f"{RELEASE}.zip", folder.parent / f"{RELEASE}.zip"):
        if zipped.is_file():
            try:
                return ZipPath(zipped)
            except BadZipFile as error:
                raise DataError(f"{zipped}: not a whole zip: {error}; fetch it again") from error
    raise DataError(
        f"{folder}: no annotation of AMI; expected {RELEASE}/words and {RELEASE}/segments, or "
        f"{RELEASE}.zip"
    )


def speakers(root: Traversable) -> dict[tuple[str, str], str]:
    """Global names by meeting and letter.

    Raises:
        FormatError: `meetings.xml` is missing or broken.
    """
    return {
        (meeting.attributes.get("observation", ""), child["nxt_agent"]): child["global_name"]
        for meeting in _elements(root / "corpusResources" / "meetings.xml")
        for child in meeting.children
        if {"nxt_agent", "global_name"} <= set(child)
    }


def rows(root: Traversable, file: str, name: str, notes: Notes) -> Iterator[AnnotationRow]:
    """The rows of one participant of one meeting.

    Args:
        root: of the annotation.
        file: meeting and letter, `ES2002a.A`.
        name: the participant's global name.
        notes: counts segments that refer to words that do not exist.

    Raises:
        FormatError: a file is missing or broken.
    """
    words = _elements(root / "words" / f"{file}.words.xml")
    places = {word.attributes.get("nite:id", ""): n for n, word in enumerate(words)}
    path = root / "segments" / f"{file}.segments.xml"
    for segment in _elements(path):
        if segment.name != "segment":
            continue
        at = f"{path}:{segment.line}"
        inside: list[_Element] = []
        try:
            for child in segment.children:
                ids = _ID.findall(child.get("href", ""))
                inside += words[places[ids[0]] : places[ids[-1]] + 1]
            start_s, end_s = _times(segment, inside)
        except (KeyError, IndexError, ValueError) as error:
            notes.drop("broken annotation", f"{at}: a word or a time is missing: {error}")
            continue
        meeting = file.partition(".")[0]
        yield AnnotationRow(at, meeting, name, gender_of(name[:1]), start_s, end_s, _text(inside))


def _times(segment: _Element, words: list[_Element]) -> tuple[float, float]:
    spoken = [w.attributes for w in words if w.name == "w" and w.attributes.get("punc") != "true"]
    if spoken and all(w.get("starttime") and w.get("endtime") for w in spoken):
        return min(float(w["starttime"]) for w in spoken), max(float(w["endtime"]) for w in spoken)
    times = segment.attributes
    return float(times["transcriber_start"]), float(times["transcriber_end"])


def _text(words: list[_Element]) -> str:
    text = ""
    for word in words:
        attributes = word.attributes
        if word.name != "w":
            kind = attributes.get("type", "")
            text += f" <{word.name} {kind}>" if kind else f" <{word.name}>"
        elif attributes.get("punc") == "true":
            text += word.text.strip()
        else:
            text += f" {word.text.strip()}" + ("-" if attributes.get("trunc") == "true" else "")
    return text.strip()


def _elements(path: Traversable) -> list[_Element]:
    """The elements right under the root, with those right under them, and their lines."""
    elements: list[_Element] = []
    depth = 0
    parser = expat.ParserCreate()
    parser.buffer_text = True

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth == 2:
            elements.append(_Element(name, attributes, parser.CurrentLineNumber))
        elif depth == 3:
            elements[-1].children += (attributes,)

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1

    def characters(text: str) -> None:
        if depth == 2:
            elements[-1].text += text

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = characters
    try:
        parser.Parse(path.read_bytes(), True)
    except expat.ExpatError as error:
        raise FormatError(f"{path}:{error.lineno}: not XML: {error}; fetch it again") from error
    except (OSError, KeyError) as error:  # KeyError: not in the zip
        raise FormatError(f"{path}: cannot be read: {error}; check the path") from error
    return elements
