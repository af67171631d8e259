"""Long format: many series in one file, a row for each time and name, told apart by a column of names."""

import re
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

# Most times come more than once; each name has some rows; hardly any name has two rows at one time.
TIMES_MOST, ROWS_A_NAME_LEAST, ROWS_ALONE_LEAST = 0.67, 3.0, 0.95
COLUMNS_MOST, NAME_CHARACTERS_MOST = 5, 100
# Whole numbers below such a name may be names, too.
IDS = re.compile(r"(^|[^a-z])(id|index|port|node|host|sensor|device|unit|machine|cell)$")

Rows = NDArray[np.int64]


def times_repeat(time_s: NDArray[np.float64]) -> bool:
    """Say whether most rows share their time with others."""
    return len(time_s) > 0 and len(np.unique(time_s)) < TIMES_MOST * len(time_s)


def names_in(
    time_s: NDArray[np.float64], columns: Mapping[int, Sequence[str]]
) -> tuple[tuple[int, ...], dict[str, Rows]] | None:
    """Return the columns that name series, and the rows of each; None where rows stay together.

    `columns`: texts by place of the columns that may be names. The fewest that tell all rows apart are taken.
    """
    some = {
        place: texts
        for place, texts in list(columns.items())[:COLUMNS_MOST]
        if max(map(len, texts), default=0) <= NAME_CHARACTERS_MOST
    }
    rows = len(time_s)
    _, at = np.unique(time_s, return_inverse=True)
    for count in range(1, len(some) + 1):
        for chosen in combinations(some, count):
            keys = [" ".join(parts) for parts in zip(*(some[k] for k in chosen), strict=True)]
            names = sorted(set(keys))  # an array of texts would be as wide as the longest
            if not 2 <= len(names) <= rows / ROWS_A_NAME_LEAST:
                continue
            number = {name: n for n, name in enumerate(names)}
            place = np.array([number[key] for key in keys])
            if len(np.unique(at * len(names) + place)) < ROWS_ALONE_LEAST * rows:
                continue
            order = np.argsort(place, kind="stable")
            ends = np.cumsum(np.bincount(place, minlength=len(names)))[:-1]
            parts_of = np.split(order.astype(np.int64), ends)
            return chosen, dict(zip(names, parts_of, strict=True))
    return None
