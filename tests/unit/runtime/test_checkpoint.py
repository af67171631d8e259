"""Checkpoints: what was saved comes back, damage is set aside and the one before it is used."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.checkpoint import Checkpoints, Snapshot, read_array, write_array
from tocsin.testing import make_context


class Numbers:
    """A stage reduced to its state."""

    def __init__(self, values: Any) -> None:
        self.values = values

    def snapshot(self, out: Any) -> None:
        write_array(out, "values", self.values)


RECORD = np.dtype([("id", "u8"), ("level", "f4")])


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(np.arange(10_000), id="three-blocks"),
        pytest.param(np.zeros(0, np.float32), id="empty"),
        pytest.param(np.array([(1, 2.5)], RECORD), id="records"),
        pytest.param(np.ones((5, 3), np.uint8), id="matrix"),
    ],
)
def test_state_survives(tmp_path: Path, values: Any) -> None:
    checkpoints = Checkpoints(tmp_path, make_context())
    checkpoints.save(7, 99, {"a": Numbers(values), "b": Numbers(values[:1])})
    loaded = Checkpoints(tmp_path, make_context()).load()
    assert loaded is not None
    sequence, tick_end_ns, state = loaded
    assert (sequence, tick_end_ns) == (7, 99)
    back = read_array(state.scoped("a"), "values")
    assert back is not None
    assert back.dtype == values.dtype
    assert back.tobytes() == values.tobytes()
    assert read_array(state.scoped("c"), "values") is None


def test_a_damaged_checkpoint_is_set_aside_for_the_one_before(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, make_context())
    for sequence in (1, 2, 3):
        newest = checkpoints.save(sequence, 0, {"a": Numbers(np.full(5, sequence))})
    assert len(list(tmp_path.glob("*.checkpoint"))) == 2
    data = bytearray(newest.read_bytes())
    data[-60] ^= 1
    newest.write_bytes(data)
    context = make_context()
    loaded = Checkpoints(tmp_path, context).load()
    assert loaded is not None
    assert loaded[0] == 2
    assert context.metrics.value("state_set_aside_total", kind="checkpoint") == 1
    assert list(tmp_path.glob("*.checkpoint.damaged-*"))


def test_one_that_does_not_fit_is_set_aside_for_the_one_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(state: Snapshot) -> None:
        raise KeyError("b")

    made = Checkpoints(tmp_path, make_context())
    for sequence in (1, 2):
        made.save(sequence, 0, {"a": Numbers(np.full(5, sequence))})
    context = make_context()
    checkpoints = Checkpoints(tmp_path, context, kind="templates")
    assert context.metrics.value("state_set_aside_total") == 0
    for sequence in (2, 1):
        loaded = checkpoints.load()
        assert loaded is not None
        assert loaded[0] == sequence
        assert not checkpoints.taken(refuse, loaded[2])
        assert f"{sequence:016d}.checkpoint.damaged-" in caplog.text
    assert "does not fit this configuration or version: KeyError: 'b'" in caplog.text
    assert checkpoints.load() is None
    assert context.metrics.value("state_set_aside_total", kind="templates") == 2


@pytest.mark.parametrize("error", [MemoryError(), OSError(5, "Input/output error")])
def test_what_the_machine_refuses_costs_no_checkpoint(tmp_path: Path, error: Exception) -> None:
    def refuse(state: Snapshot) -> None:
        raise error

    checkpoints = Checkpoints(tmp_path, make_context())
    checkpoints.save(1, 0, {"a": Numbers(np.full(5, 1))})
    loaded = checkpoints.load()
    assert loaded is not None
    with pytest.raises(type(error)):
        checkpoints.taken(refuse, loaded[2])
    assert checkpoints.load() is not None
    assert checkpoints.taken(lambda state: None, loaded[2])


def test_with_nothing_left_there_is_no_state(tmp_path: Path) -> None:
    (tmp_path / f"{1:016d}.checkpoint").write_bytes(b"\x00" * 50)
    assert Checkpoints(tmp_path, make_context()).load() is None
    assert Checkpoints(tmp_path / "absent", make_context()).load() is None


def test_a_snapshot_in_memory_scopes_names() -> None:
    snapshot = Snapshot()
    snapshot.scoped("windows").scoped("hll").write("x", 0, np.zeros(1))
    assert snapshot.names() == ["windows.hll.x"]
    assert snapshot.scoped("windows").names() == ["hll.x"]
