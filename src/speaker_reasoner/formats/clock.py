"""Seconds to milliseconds, milliseconds to text, and clocks to seconds. The only place where times are rounded."""

import re
from decimal import Decimal

from ..transcript import Segment


def span_ms(segment: Segment) -> tuple[int, int]:
    """Return start and end in whole milliseconds; a segment lasts at least one."""
    start_ms = to_ms(segment.start_s)
    return start_ms, max(to_ms(segment.end_s), start_ms + 1)


def to_ms(seconds: float) -> int:
    return round(seconds * 1000)


def decimal_seconds(ms: int) -> str:
    """Render milliseconds as seconds with three decimals: `3.400`."""
    return f"{ms // 1000}.{ms % 1000:03d}"


def subtitle_time(ms: int, separator: str) -> str:
    """Render milliseconds as `00:00:03.400`, with `separator` before the milliseconds."""
    minutes, rest_ms = divmod(ms, 60_000)
    clock = f"{minutes // 60:02d}:{minutes % 60:02d}:{rest_ms // 1000:02d}"
    return f"{clock}{separator}{rest_ms % 1000:03d}"


def reading_time(seconds: float) -> str:
    """Render seconds for people: `00:03.40`, with hours in front from the first hour on."""
    minutes, rest_cs = divmod(round(seconds * 100), 6000)
    clock = f"{minutes % 60:02d}:{rest_cs // 100:02d}.{rest_cs % 100:02d}"
    return f"{minutes // 60}:{clock}" if minutes >= 60 else clock


_CLOCK = re.compile(r"(\d+):([0-5]?\d):([0-5]?\d(?:[.,]\d+)?)")


def clock_s(value: object) -> object:
    """`00:01:02,500` in seconds; whatever else it is stays."""
    if not isinstance(value, str) or not (match := _CLOCK.fullmatch(value.strip())):
        return value
    hours, minutes, seconds = match.groups()
    return str(Decimal(int(hours) * 3600 + int(minutes) * 60) + Decimal(seconds.replace(",", ".")))
