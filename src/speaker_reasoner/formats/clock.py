"""Seconds to milliseconds, and milliseconds to text. The only place where times are rounded."""

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
