"""A small picture of a series for tickets and mail: values, expected band, marks. Rows in, SVG out."""

import math
from collections.abc import Sequence
from html import escape

from alerting.words.amounts import number
from alerting.words.escape import line

WIDTH, HEIGHT = 480, 160
LEFT, RIGHT, TOP, BOTTOM = 56, 8, 22, 20
POINTS_MAX = 2_000


def picture(
    times_ns: Sequence[int],
    values: Sequence[float],
    *,
    lower: Sequence[float] = (),
    upper: Sequence[float] = (),
    marks: Sequence[tuple[int, str]] = (),
    title: str = "",
    unit: str = "",
) -> str:
    """Return an SVG document. NaN leaves a gap; `marks` are moments with a word (raised, change).

    Colours work on white and in print; the band is grey, the line dark, marks red and dashed. Texts
    are cleaned and escaped: titles come from the network.
    """
    title = line(title)
    times, shown = list(times_ns)[-POINTS_MAX:], list(values)[-POINTS_MAX:]
    low, high = list(lower)[-POINTS_MAX:], list(upper)[-POINTS_MAX:]
    finite = [v for v in (*shown, *low, *high) if math.isfinite(v)]
    top = max(finite, default=1.0)
    bottom = min(0.0, min(finite, default=0.0))
    span = (top - bottom) or 1.0
    first, last = (times[0], times[-1]) if times else (0, 1)

    def x(at: int) -> str:
        share = (at - first) / max(last - first, 1)
        return f"{LEFT + share * (WIDTH - LEFT - RIGHT):.1f}"

    def y(value: float) -> str:
        return f"{HEIGHT - BOTTOM - (value - bottom) / span * (HEIGHT - TOP - BOTTOM):.1f}"

    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
            f' font-family="sans-serif" font-size="11"><title>{escape(title)}</title>'
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>'
            f'<text x="{LEFT}" y="14" font-size="12">{escape(_short(title))}</text>'
        )
    ]
    band = [
        (at, a, b)
        for at, a, b in zip(times, low, high, strict=False)
        if math.isfinite(a) and math.isfinite(b)
    ]
    if band:
        there = " ".join(f"{x(at)},{y(b)}" for at, _, b in band)
        back = " ".join(f"{x(at)},{y(a)}" for at, a, _ in reversed(band))
        parts.append(f'<polygon points="{there} {back}" fill="#dde3ea"/>')
    for level in (bottom, top):
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(level)}" y2="{y(level)}" stroke="#ccc"/>'
            f'<text x="{LEFT - 4}" y="{y(level)}" text-anchor="end">{escape(number(level))}</text>'
        )
    for run in _lines(times, shown):
        points = " ".join(f"{x(at)},{y(value)}" for at, value in run)
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="#1b4965" stroke-width="1.5"/>'
        )
    for at, word in marks:
        if first <= at <= last:
            parts.append(
                f'<line x1="{x(at)}" x2="{x(at)}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"'
                f' stroke="#c1121f" stroke-dasharray="3 2"/>'
                f'<text x="{x(at)}" y="{HEIGHT - 6}" text-anchor="middle"'
                f' fill="#c1121f">{escape(word)}</text>'
            )
    if unit:
        parts.append(f'<text x="{LEFT}" y="{HEIGHT - 6}">{escape(unit)}</text>')
    return "".join(parts) + "</svg>"


def _lines(times: Sequence[int], values: Sequence[float]) -> list[list[tuple[int, float]]]:
    """Return the runs of values between gaps."""
    made: list[list[tuple[int, float]]] = [[]]
    for at, value in zip(times, values, strict=True):
        if math.isfinite(value):
            made[-1].append((at, value))
        elif made[-1]:
            made.append([])
    return [run for run in made if run]


def _short(title: str) -> str:
    return title if len(title) <= 70 else title[:69] + "…"
