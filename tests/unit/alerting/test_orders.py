"""What other systems order is done once, also where the node or the gate is restarted in between."""

import pytest

from alerting.config import SinkSettings
from alerting.orders import KEYS_KEPT, Orders
from alerting.words.delivery import Order
from runtime.checkpoint import Snapshot
from tocsin.control import control_row

SINKS = {"desk": SinkSettings(kind="tmf621", send="incidents")}
TAKEN = Order(do="acknowledge", id="0" * 16, by="ann", key="INC1-taken", sink="desk")


def test_a_repeated_order_is_done_once() -> None:
    orders = Orders(SINKS)
    ((kind, payload),) = orders.rows([TAKEN, TAKEN])
    assert (kind, payload["incident"], payload["system"]) == ("acknowledge", TAKEN.id, "desk")
    assert orders.rows([TAKEN]) == []


@pytest.mark.parametrize("kept_in", ["journal", "checkpoint"])
def test_the_gate_repeats_an_order_to_a_node_that_was_killed_before_it_answered(
    kept_in: str,
) -> None:
    before, after, state = Orders(SINKS), Orders(SINKS), Snapshot()
    rows = [control_row(kind, 0, payload) for kind, payload in before.rows([TAKEN])]
    if kept_in == "journal":
        after.absorb(rows)
    else:
        before.absorb(rows)
        before.snapshot(state)
        after.restore(state)
    assert after.rows([TAKEN]) == []
    assert len(after.rows([Order(do="close", id=TAKEN.id, by="ann", key="INC1-closed")])) == 1


def test_an_order_whose_tick_was_not_journalled_is_done_when_it_is_repeated() -> None:
    before, after, state = Orders(SINKS), Orders(SINKS), Snapshot()
    before.rows([TAKEN])
    before.snapshot(state)  # at a clean stop, before the event tick ended
    after.restore(state)
    assert len(after.rows([TAKEN])) == 1


def test_the_keys_that_are_kept_have_a_bound() -> None:
    orders = Orders({})
    for number in range(KEYS_KEPT + 10):
        made = orders.rows([Order(do="clear", id=TAKEN.id, by="ann", key=str(number))])
        orders.absorb([control_row(kind, 0, payload) for kind, payload in made])
    state = Snapshot()
    orders.snapshot(state)
    again = Orders({})
    again.restore(state)
    assert len(again._seen) == KEYS_KEPT
