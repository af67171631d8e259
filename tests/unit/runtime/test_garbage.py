"""The collector between ticks: cycles go, what stays is left alone."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from runtime import garbage


class Knot:
    """Part of a cycle."""

    def __init__(self) -> None:
        self.other = self


@pytest.fixture
def calm() -> Iterator[None]:
    before = gc.get_threshold()
    garbage.calm()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


@pytest.mark.usefixtures("calm")
def test_cycles_of_a_tick_go_when_nobody_waits_and_not_before() -> None:
    gone = weakref.ref(Knot())
    kept = [[n] for n in range(garbage.TIDY_AFTER + 100)]
    frozen = gc.get_freeze_count()
    assert gone() is not None
    garbage.tidy()
    assert gone() is None
    assert gc.get_freeze_count() >= frozen + len(kept)  # no later collection looks at it


@pytest.mark.usefixtures("calm")
def test_a_tick_that_made_little_is_no_occasion() -> None:
    gone = weakref.ref(Knot())
    garbage.tidy()
    assert gone() is not None
    gc.collect()
