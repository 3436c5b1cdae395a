"""Moments of a video, as people write them."""

from __future__ import annotations


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
