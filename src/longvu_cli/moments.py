"""Moments of a video, as people write them."""

from __future__ import annotations

# How many of the moments that matter for a question are told where nobody says how many.
USUAL_MOMENTS = 3


def seconds_of(text: str) -> float:
    """Seconds, or ``[hh:]mm:ss``, with decimals, as seconds.

    Raises:
        ValueError: it is no time.
    """
    problem = "no time: give seconds, or [hh:]mm:ss"
    try:
        numbers = [float(part) for part in text.split(":")]
    except ValueError:
        raise ValueError(problem) from None
    if len(numbers) > 3 or any(number < 0 for number in numbers) or any(number >= 60 for number in numbers[1:]):
        raise ValueError(problem)
    return sum(number * 60.0**power for power, number in enumerate(reversed(numbers)))


def clock(seconds: float) -> str:
    """``1:05``, ``1:01:05``; below a minute with a decimal, ``0:05.2``, where there is one."""
    whole = int(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    if hours:
        return f"{hours}:{minutes:02}:{rest:02}"
    tenths = int(seconds * 10) % 10
    return f"{minutes}:{rest:02}" + (f".{tenths}" if whole < 60 and tenths else "")
