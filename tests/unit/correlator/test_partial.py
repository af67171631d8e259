"""The order of a sample is that of all its columns, also where priorities are equal."""

import numpy as np
import pytest

from correlator.partial import in_order


@pytest.mark.parametrize("values", [3, 10_000], ids=["many-equal", "few-equal"])
def test_the_order_is_that_of_all_columns(values: int) -> None:
    random = np.random.default_rng(5)
    priority = random.integers(0, values, 200).astype(np.float64)
    first, second = random.integers(0, 3, 200), np.arange(200)
    rows = zip((-priority).tolist(), first.tolist(), second.tolist(), strict=True)
    wanted = [row[2] for row in sorted(rows)]
    assert in_order(priority, first, second).tolist() == wanted
