"""DOCX: a transcript as minutes that can be printed and edited, a paragraph for each turn of a speaker."""

import io
import zipfile
from itertools import groupby
from xml.sax.saxutils import escape

from ..transcript import Transcript
from .clock import reading_time

_TYPES = (
    '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>'
    '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
    '<Default Extension="rels" '
    'ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    '<Override PartName="/word/document.xml" ContentType="application/vnd.openxmlformats-'
    'officedocument.wordprocessingml.document.main+xml"/></Types>'
)
_LINKS = (
    '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>'
    '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
    '<Relationship Id="rId1" Type="http://schemas.openxmlformats.org/officeDocument/2006/'
    'relationships/officeDocument" Target="word/document.xml"/></Relationships>'
)
_PAGE = (
    '<w:sectPr><w:pgSz w:w="11906" w:h="16838"/>'
    '<w:pgMar w:top="1134" w:right="1134" w:bottom="1134" w:left="1134" w:header="567" '
    'w:footer="567" w:gutter="0"/></w:sectPr>'
)


def render_docx(transcript: Transcript) -> bytes:
    """Render Office Open XML: the name of the recording, its length and speakers, warnings, then who
    said what, with the time at which each turn begins. Holds no genders and no times of words."""
    people = ", ".join(transcript.speakers) or "nobody"
    parts = [
        _paragraph(_run(transcript.recording, bold=True, half_points=36), after=120),
        _paragraph(_run(f"{reading_time(transcript.duration_s)} · {people}", grey=True), after=240),
        *(_paragraph(_run(text, italic=True), after=120) for text in transcript.warnings),
        *(
            _paragraph(
                _run(
                    f"Not transcribed from {reading_time(gap.start_s)} to {reading_time(gap.end_s)}: "
                    f"{gap.reason}",
                    italic=True,
                ),
                after=120,
            )
            for gap in transcript.missing
        ),
    ]
    for speaker, segments in groupby(transcript.segments, key=lambda one: one.speaker):
        turn = list(segments)
        text = " ".join(one.text for one in turn if one.text)
        head = _run(speaker, bold=True) + _run(f"  {reading_time(turn[0].start_s)}", grey=True)
        parts += [_paragraph(head, after=0, keep=True), _paragraph(_run(text), after=180)]
    body = "".join(parts) + _PAGE
    document = (
        '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>'
        '<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main">'
        f"<w:body>{body}</w:body></w:document>"
    )
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (
            ("[Content_Types].xml", _TYPES),
            ("_rels/.rels", _LINKS),
            ("word/document.xml", document),
        ):
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return file.getvalue()


def _paragraph(runs: str, *, after: int, keep: bool = False) -> str:
    """A paragraph, with space after it in twentieths of a point."""
    kept = "<w:keepNext/>" if keep else ""
    return f'<w:p><w:pPr>{kept}<w:spacing w:after="{after}"/></w:pPr>{runs}</w:p>'


def _run(
    text: str,
    *,
    bold: bool = False,
    italic: bool = False,
    grey: bool = False,
    half_points: int = 22,
) -> str:
    style = ("<w:b/>" if bold else "") + ("<w:i/>" if italic else "")
    style += '<w:color w:val="666666"/>' if grey else ""
    style += f'<w:sz w:val="{half_points}"/>'
    shown = escape("".join(c for c in text if c == "\t" or c >= " "))
    return f'<w:r><w:rPr>{style}</w:rPr><w:t xml:space="preserve">{shown}</w:t></w:r>'
