"""The picture of a series: what is read off it is there, apart and inside."""

import math
from xml.etree import ElementTree

from alerting.words.picture import HEIGHT, LEFT, TITLE_CHARACTERS, WIDTH, picture

SPACE = "{http://www.w3.org/2000/svg}"
MINUTE = 60_000_000_000
START = 1_790_554_800_000_000_000  # 2026-09-28 00:20 UTC
TIMES = [START + i * MINUTE for i in range(60)]


def texts(svg: str, fill: str = "") -> list[tuple[float, float, str, str]]:
    """Return x, y, anchor and words of the texts."""
    return [
        (float(one.attrib["x"]), float(one.attrib["y"]), one.attrib["text-anchor"], one.text or "")
        for one in ElementTree.fromstring(svg).iter(f"{SPACE}text")
        if one.attrib.get("fill", "") == fill and "stroke" not in one.attrib
    ]


def test_it_says_from_when_to_when_and_in_what_unit() -> None:
    svg = picture(TIMES, [5e8] * 60, title="t", unit="bit/s")
    assert {text for *_, text in texts(svg)} == {
        "t",
        "0",
        "500M",
        "bit/s",
        "28 Sep 00:20",
        "28 Sep 01:19 UTC",
    }
    root = ElementTree.fromstring(svg)
    assert (root.attrib["width"], root.attrib["height"]) == (str(WIDTH), str(HEIGHT))


def test_words_at_marks_that_stand_close_do_not_cover_one_another() -> None:
    marks = [(TIMES[i], word) for i, word in ((0, "raised"), (50, "raised"), (51, "acknowledged"),
                                              (55, "cleared"), (59, "raised"))]  # fmt: skip
    svg = picture(TIMES, [1.0] * 60, marks=marks, unit="flows/s")
    words = texts(svg, "#c1121f")
    assert len(words) == 5
    boxes = []
    for x, y, anchor, word in words:
        left = x if anchor == "start" else x - 6 * len(word)
        assert left >= LEFT - 1
        assert left + 6 * len(word) <= WIDTH
        boxes.append((left, left + 6 * len(word), y))
    for i, (left, right, y) in enumerate(boxes):
        for other_left, other_right, other_y in boxes[:i]:
            assert y != other_y or right <= other_left or other_right <= left


def test_a_gap_has_no_band_and_a_value_alone_is_a_dot() -> None:
    values = [math.nan] * 60
    values[10] = 5.0
    band = [4.0 if i < 20 or i > 40 else math.nan for i in range(60)]
    svg = picture(TIMES, values, lower=band, upper=[6.0] * 60)
    root = ElementTree.fromstring(svg)
    assert len(root.findall(f"{SPACE}polygon")) == 2
    (dot,) = root.findall(f"{SPACE}polyline")
    assert len(set(dot.attrib["points"].split())) == 1
    assert len(dot.attrib["points"].split()) == 2
    assert dot.attrib["stroke-linecap"] == "round"


def test_a_long_title_ends_inside() -> None:
    svg = picture(TIMES, [1.0] * 60, title="x" * 200)
    shown = next(text for *_, text in texts(svg) if text.startswith("x"))
    assert len(shown) == TITLE_CHARACTERS
