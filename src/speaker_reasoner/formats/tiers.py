"""Tiers of a TextGrid: whose segments they are, and those that hold words or phones.

Three ways to lay words out are known. Ours: a tier `Ana` and one `Ana words` of its words. Those of forced
aligners, by speaker (`ana - words`, `ana - phones`; Montreal Forced Aligner) or of one person alone
(`words`, `phones`; `ORT-MAU`, `MAU` of WebMAUS): their words are grouped into segments at pauses, as those
of a CTM, and phones, syllables and the like are no words.
"""

import re
from collections.abc import Container, Sequence
from dataclasses import dataclass
from decimal import Decimal

from ..errors import FormatError
from .ctm import MAX_PAUSE_S, join_words
from .sessions import UNKNOWN_SPEAKER


def _tier_named(names: str) -> re.Pattern[str]:
    """Match `words`, `Ana words`, `Ana - words`, `Ana (words)`; group 1 is whose tier it is."""
    either = "|".join(names.split())
    return re.compile(rf"(?:(.*?)[\s\-–_:/.(\[]+)?(?:{either})[)\]]?", re.IGNORECASE)


_WORD_TIER = _tier_named(
    "words? ort-mau ort tokens? mots? wörter wort palabras? palavras? parole 词 单词 字词 単語 단어"
)
_SPEECH_TIER = _tier_named(
    "utterances? utts? sentences? segments? transcripts? transcriptions? phrases? 句 句子 语句 発話 발화"
)
_PHONE_TIER = _tier_named(
    "phones? phonemes? phon ipa (?:kan|kas|mas|trn)?-?mau kan syllables? sylls? syllabes? phonèmes?"
    " laute? silben? fonemas? sílabas? fonemi 音素 音节 拼音 声韵母 声母 韵母 音節 モーラ 음소 음절"
)
_REMARK_TIER = _tier_named(
    "notes? comments? remarks? noises? events? topics? translations? gloss(?:es)? 备注 翻译"
)
SPEAKER_TIER = re.compile(
    r"(?:speakers?|spk|spkr|talkers?|who|diari[sz]ation|speaker[ _-]?(?:id|label)s?|sprecher(?:in)?|locuteurs?|"
    r"hablantes?|说话人|发言人|話者|화자)",
    re.IGNORECASE,
)
_SILENCES = frozenset(("sil", "sp", "<eps>", "<sil>", "<p:>", "<p>", "{sl}", "{sp}", "#"))
_SILENT_LABELS = frozenset(
    ("sil", "sp", "<eps>", "<sil>", "[sil]", "<p:>", "<silence>", "[silence]")
)
"""The same where a tier is not of words, and `#` may be a label that somebody wrote."""
_SHORT = 5  # characters that labels of phones have at most, on average


@dataclass(frozen=True, slots=True)
class Interval:
    """A stretch of a tier that is not empty; `at` is its place in the file."""

    start_s: Decimal
    end_s: Decimal
    mark: str
    at: str


@dataclass(frozen=True, slots=True)
class Tier:
    """One tier of a TextGrid; one of points has no intervals."""

    name: str
    intervals: list[Interval]
    is_points: bool = False

    @property
    def speaker(self) -> str:
        """The name without the number of a speaker's further tier."""
        return re.sub(r"#\d+$", "", self.name)


@dataclass(frozen=True, slots=True)
class SortedTiers:
    """The tiers of a file.

    Attributes:
        speech: tiers of segments, each of a speaker, and tiers of points.
        words: by name of such a tier, the words of its segments.
        dropped: names of tiers whose labels are no words.
        remarks: names of tiers with remarks on the words: notes, translations.
        silences: how many labels of `speech` mark silence, and were left out.
    """

    speech: list[Tier]
    words: dict[str, list[Interval]]
    dropped: list[str]
    remarks: list[str]
    silences: int

    def noticed(self) -> dict[str, int]:
        """Return warnings about tiers that were not read, each with its count."""
        return {
            "tiers of phones were not read": len(self.dropped),
            "tiers of notes, events or translations were not read": len(self.remarks),
            "labels of silence were left out": self.silences,
        }


def names_tier(label: str) -> bool:
    """Return whether a tier of this name is read as one of words, phones, remarks or speakers, not as a speaker's."""
    known = (_WORD_TIER, _SPEECH_TIER, _PHONE_TIER, _REMARK_TIER, SPEAKER_TIER)
    return any(pattern.fullmatch(label) for pattern in known)


def sort_tiers(tiers: Sequence[Tier], where: str) -> SortedTiers:
    """Sort the tiers of a file.

    Raises:
        FormatError: it holds phones, and no words.
    """
    names = {tier.name for tier in tiers if not tier.is_points}
    speech: list[Tier] = []
    words: dict[str, list[Interval]] = {}
    dropped, remarks, silences = [], [], 0
    renamed: dict[str, str] = {}
    of_nobody = any(_is_unnamed(_WORD_TIER, tier) for tier in tiers)
    others = [t for t in tiers if t.intervals and not is_of_remarks(t)]
    people = {_person(t.name) for t in others} | {t.name for t in others}
    for tier in tiers:
        if not tier.is_points and (of_tier := _words_of(tier, names - {tier.name})) is not None:
            words.setdefault(of_tier, []).extend(tier.intervals)
        elif others and is_of_remarks(tier, people) and tier.intervals:
            remarks.append(tier.name)
        elif holds_phones(tier):
            dropped.append(tier.name)
        elif not tier.is_points and _holds(tier, _WORD_TIER):
            match = _WORD_TIER.fullmatch(tier.name)
            name = ((match and match[1]) or "").strip() or UNKNOWN_SPEAKER
            said = [i for i in tier.intervals if i.mark.lower() not in _SILENCES]
            speech.append(Tier(name, _grouped(said)))
            words.setdefault(name, []).extend(said)
        else:
            match = _SPEECH_TIER.fullmatch(tier.name)
            name = tier.name
            if match and (match[1] or "").strip() and match[1].strip() not in names:
                name = match[1].strip()
            elif match and not match[1] and of_nobody:
                name = UNKNOWN_SPEAKER
            said = [i for i in tier.intervals if i.mark.lower() not in _SILENT_LABELS]
            silences += len(tier.intervals) - len(said)
            speech.append(Tier(name, said, tier.is_points))
            renamed[tier.name] = name
    if dropped and not any(tier.intervals for tier in speech):
        raise FormatError(
            f"{where}: its tiers ({', '.join(dropped)}) hold phones, expected words; export the tiers "
            "of words, too"
        )
    words = {renamed.get(name, name): of_tier for name, of_tier in words.items()}
    return SortedTiers(speech, words, dropped, remarks, silences)


def _words_of(tier: Tier, names: set[str]) -> str | None:
    """The tier whose words one holds: `Ana` of `Ana words`, `ana` or `ana - utterances` of `ana - words`."""
    match = _WORD_TIER.fullmatch(tier.name)
    if match is None:
        return None
    who = (match[1] or "").strip()
    if who in names:
        return who
    whose = ((n, _SPEECH_TIER.fullmatch(n)) for n in names)
    return next((n for n, m in whose if m and (m[1] or "").strip() == who), None)


def _person(name: str) -> str:
    """Return the speaker of a tier of segments or words, `ana` of `ana - words`; of any other tier its name."""
    match = _WORD_TIER.fullmatch(name) or _SPEECH_TIER.fullmatch(name)
    return ((match and match[1]) or "").strip() or name


def is_of_remarks(tier: Tier, people: Container[str] = ()) -> bool:
    """Return whether a tier is about what was said: `notes`, or `Ana - notes` beside tiers of Ana."""
    match = _REMARK_TIER.fullmatch(tier.name)
    return match is not None and (not match[1] or match[1].strip() in people)


def holds_words(tier: Tier) -> bool:
    """Return whether a tier has the name of one of words, and labels of one word each."""
    return _holds(tier, _WORD_TIER)


def _is_unnamed(pattern: re.Pattern[str], tier: Tier) -> bool:
    match = pattern.fullmatch(tier.name)
    return match is not None and not match[1] and bool(tier.intervals)


def _holds(tier: Tier, pattern: re.Pattern[str]) -> bool:
    """Return whether a tier has such a name, and labels of one word each, but for one in ten."""
    if not tier.intervals or pattern.fullmatch(tier.name) is None:
        return False
    single = sum(len(interval.mark.split()) == 1 for interval in tier.intervals)
    return single >= 0.9 * len(tier.intervals)


def holds_phones(tier: Tier) -> bool:
    """Return whether a tier has the name of one of phones, and labels that are short."""
    if tier.is_points or _WORD_TIER.fullmatch(tier.name) or not _holds(tier, _PHONE_TIER):
        return False
    return sum(len(i.mark) for i in tier.intervals) <= _SHORT * len(tier.intervals)


def _grouped(words: Sequence[Interval]) -> list[Interval]:
    """Segments of words, divided at pauses above `MAX_PAUSE_S`."""
    groups: list[list[Interval]] = []
    for word in sorted(words, key=lambda word: word.start_s):
        if not groups or word.start_s - groups[-1][-1].end_s > MAX_PAUSE_S:
            groups.append([])
        groups[-1].append(word)
    return [
        Interval(
            group[0].start_s,
            max(word.end_s for word in group),
            join_words([word.mark for word in group]),
            group[0].at,
        )
        for group in groups
    ]
