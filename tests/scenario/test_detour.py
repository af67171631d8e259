"""A link is cut and mended under a node that has just started: what stood in for it is not called cut."""

from pathlib import Path

import pytest

from tests.support.fed_node import SECOND, START_NS, Machine
from tocsin.demo.network import load_demo_network
from tocsin.demo.traffic import Fault


def test_the_detour_that_falls_silent_with_the_repair_is_no_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """bru1-lux1 carries next to nothing but the detour of bru1-dus1, and its baseline is seconds old."""
    link, start_ns = load_demo_network().links_used()[0], START_NS + 21_900 * SECOND
    fault = Fault("link-cut", link, start_ns + 8 * SECOND, start_ns + 37 * SECOND)
    machine = Machine(
        tmp_path,
        monkeypatch,
        start_ns=start_ns,
        seed=3,
        faults=(fault,),
        records_per_second=900.0,
    )
    try:
        machine.run(51)
        changes = [(c["kind"], c["entity"], c["state"]) for c in machine.node._outbox.changes()]
    finally:
        machine.node.stop()
    assert changes == [("link-cut", link, "raised"), ("link-cut", link, "cleared")]
