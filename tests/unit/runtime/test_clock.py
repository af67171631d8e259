"""The steady clock: the system's time without its steps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.clock import JUMP_NS, PARTS, SET, SteadyClock, told

SECOND = 1_000_000_000
START = 1_790_000_000 * SECOND


class Machine:
    """A machine whose clock is set now and then."""

    def __init__(self) -> None:
        self.true_ns = 0
        self.off_ns = 0
        self.clock = self.process()

    def process(self) -> SteadyClock:
        return SteadyClock(
            system=lambda: START + self.true_ns + self.off_ns, steady=lambda: 7 + self.true_ns
        )

    def run(self, seconds: float, step: float = 1.0) -> list[int]:
        """Let time pass; return what the clock said."""
        said = []
        for _ in range(round(seconds / step)):
            self.true_ns += round(step * SECOND)
            said.append(self.clock.now_ns())
        return said


def test_a_clock_that_nobody_sets_is_the_systems() -> None:
    machine = Machine()
    assert machine.run(3, 0.5)[-1] == START + 3 * SECOND
    assert (machine.clock.ahead_ns, machine.clock.jumped_ns) == (0, 0)


@pytest.mark.parametrize("seconds", [-3, 3, -3600, 50])
def test_a_step_is_made_up_for_by_a_hundredth(seconds: int) -> None:
    machine = Machine()
    before = machine.run(10)[-1]
    machine.off_ns = seconds * SECOND
    (after,) = machine.run(1)
    assert abs(after - before - SECOND) <= SECOND // PARTS
    assert machine.clock.ahead_ns == pytest.approx(-seconds * SECOND, abs=SECOND // PARTS)
    said = machine.run(abs(seconds) * PARTS, 10.0)
    assert machine.clock.ahead_ns == 0
    assert all(b > a for a, b in zip(said, said[1:], strict=False))
    assert machine.clock.jumped_ns == 0


def test_far_ahead_it_jumps_and_says_how_far() -> None:
    machine = Machine()
    machine.run(10)
    machine.off_ns = 3600 * SECOND
    (after,) = machine.run(1)
    assert after == START + 3611 * SECOND
    assert machine.clock.jumped_ns == 3600 * SECOND
    machine.off_ns = 0
    (after,) = machine.run(1)
    assert 0 < after - (START + 3611 * SECOND) <= SECOND


def test_a_child_goes_on_with_its_parents_time(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    machine.off_ns = -3600 * SECOND
    machine.run(100)
    for name, value in told(machine.clock).items():
        monkeypatch.setenv(name, value)
    machine.true_ns += 20 * SECOND
    child = machine.process()
    assert child.now_ns() == machine.clock.now_ns()
    monkeypatch.delenv(SET)
    alone = machine.process()
    assert alone.now_ns() < child.now_ns() - 3000 * SECOND
    alone.not_before(child.now_ns())
    assert alone.now_ns() == child.now_ns()


@given(st.lists(st.tuples(st.floats(0, 1e5), st.integers(-(10**18), 10**18)), max_size=30))
def test_it_never_falls_and_never_runs_fast_unsaid(steps: list[tuple[float, int]]) -> None:
    machine, now, jumped = Machine(), START, 0
    for seconds, off_ns in steps:
        machine.true_ns += (passed := round(seconds * SECOND))
        machine.off_ns = off_ns
        before, now = now, machine.clock.now_ns()
        moved = now - before - (machine.clock.jumped_ns - jumped)
        jumped = machine.clock.jumped_ns
        assert passed - passed // PARTS - 1 <= moved <= passed + passed // PARTS + 1
        assert machine.clock.ahead_ns >= -JUMP_NS
