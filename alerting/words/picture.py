"""A small picture of a series for tickets and mail: values, expected band, times, marks. Rows in, SVG out."""

import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape

from alerting.words.amounts import number
from alerting.words.escape import line

WIDTH, HEIGHT = 480, 160
LEFT, RIGHT, TOP, BOTTOM = 60, 8, 22, 20
POINTS_MAX = 2_000
TITLE_CHARACTERS = 62  # that fit at its size in most fonts
MARK_ROWS = 3  # of words at marks that stand close together
ROW_HEIGHT = 12
CHARACTER_WIDTH = 6.6  # of a word at a mark, about


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

    Colours work on white and in print, on a ground of its own where all around is dark; the band is grey, the line
    dark, marks red and dashed. Times are UTC. Texts are cleaned and escaped: titles come from the network.
    """
    title = line(title)
    times, shown = list(times_ns)[-POINTS_MAX:], list(values)[-POINTS_MAX:]
    low, high = list(lower)[-POINTS_MAX:], list(upper)[-POINTS_MAX:]
    finite = [v for v in (*shown, *low, *high) if math.isfinite(v)]
    top = max(finite, default=1.0)
    bottom = min(0.0, min(finite, default=0.0))
    span = (top - bottom) or 1.0
    first, last = (times[0], times[-1]) if times else (0, 1)

    def x(at: int) -> float:
        return LEFT + (at - first) / max(last - first, 1) * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (value - bottom) / span * (HEIGHT - TOP - BOTTOM)

    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}"'
            f' viewBox="0 0 {WIDTH} {HEIGHT}" role="img" font-family="sans-serif" font-size="11">'
            f'<title>{escape(title)}</title><rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>'
        ),
        _text(8, 14, _short(title), more=' font-size="12"'),
    ]
    for run in _bands(times, low, high):
        there = " ".join(f"{x(at):.1f},{y(b):.1f}" for at, _, b in run)
        back = " ".join(f"{x(at):.1f},{y(a):.1f}" for at, a, _ in reversed(run))
        parts.append(f'<polygon points="{there} {back}" fill="#dde3ea"/>')
    for level in (bottom, top):
        at_y = f"{y(level):.1f}"
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at_y}" y2="{at_y}" stroke="#ccc"/>'
        )
        parts.append(_text(LEFT - 4, y(level) + 4, number(level), anchor="end"))
    parts.append(_text(LEFT - 4, (TOP + HEIGHT - BOTTOM) / 2, line(unit, 10), anchor="end"))
    for one in _lines(times, shown):
        points = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in one)
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="#1b4965" stroke-width="1.5"'
            ' stroke-linecap="round"/>'
        )
    parts += _marked([(x(at), word) for at, word in marks if first <= at <= last])
    if times:
        parts.append(_text(LEFT, HEIGHT - 6, _clock(first)))
        parts.append(_text(WIDTH - RIGHT, HEIGHT - 6, f"{_clock(last)} UTC", anchor="end"))
    return "".join(parts) + "</svg>"


def _marked(marks: Iterable[tuple[float, str]]) -> list[str]:
    """Return a line for each mark, and its word where there is room: below those that are close before it."""
    parts = []
    free = [0.0] * MARK_ROWS  # from where on each row of words is free
    for x, word in sorted(marks):
        parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"'
            f' stroke="#c1121f" stroke-dasharray="3 2"/>'
        )
        width = CHARACTER_WIDTH * len(word)
        begin = x + 3 if x + 3 + width <= WIDTH else x - 3 - width
        row = next((row for row in range(MARK_ROWS) if free[row] <= begin), None)
        if row is None:
            continue
        free[row] = begin + width + 6
        anchor = "start" if begin > x else "end"
        at = x + 3 if begin > x else x - 3
        # A rim first, where the line passes.
        for more in (' stroke="#fff" stroke-width="3"', ' fill="#c1121f"'):
            parts.append(_text(at, TOP + 10 + row * ROW_HEIGHT, word, anchor=anchor, more=more))
    return parts


def _text(x: float, y: float, text: str, *, anchor: str = "start", more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>{escape(text)}</text>'


def _lines(times: Sequence[int], values: Sequence[float]) -> list[list[tuple[int, float]]]:
    """Return the runs of values between gaps; a value alone is there twice, and so a dot."""
    made: list[list[tuple[int, float]]] = [[]]
    for at, value in zip(times, values, strict=True):
        if math.isfinite(value):
            made[-1].append((at, value))
        elif made[-1]:
            made.append([])
    return [run if len(run) > 1 else run * 2 for run in made if run]


def _bands(
    times: Sequence[int], lower: Sequence[float], upper: Sequence[float]
) -> list[list[tuple[int, float, float]]]:
    """Return the runs of the band between gaps."""
    made: list[list[tuple[int, float, float]]] = [[]]
    for at, low, high in zip(times, lower, upper, strict=False):
        if math.isfinite(low) and math.isfinite(high):
            made[-1].append((at, low, high))
        elif made[-1]:
            made.append([])
    return [run for run in made if run]


def _clock(ns: int) -> str:
    return f"{datetime.fromtimestamp(ns // 10**9, UTC):%d %b %H:%M}"


def _short(title: str) -> str:
    return title if len(title) <= TITLE_CHARACTERS else title[: TITLE_CHARACTERS - 1] + "…"
