"""What a version before wrote into its checkpoint means the same to this one."""

from typing import Any

import msgspec
import numpy as np
import pytest

from alerting.config import MaintenanceSettings
from alerting.life.windows import Windows, moment_ns, planned
from runtime.checkpoint import Snapshot, read_array, write_array
from tocsin.testing.alarms import AlarmWorld


@pytest.mark.parametrize(
    ("days", "start"), [((), "2026-12-01T02:00:00+00:00"), (("tue",), "02:00")]
)
def test_a_work_that_was_ended_early_stays_ended_over_an_upgrade(days: Any, start: str) -> None:
    settings = MaintenanceSettings(start=start, minutes=120, days=days, routers=("r1",))
    now_ns = moment_ns("2026-12-01T02:30:00+00:00")
    before = msgspec.to_builtins(planned("work", settings))
    del before["spared"], before["ended_ns"]  # as the version before 2026-11-29 wrote it
    before |= {"days": [], "start_ns": now_ns - 1, "end_ns": now_ns, "until_ns": now_ns}
    windows = Windows(100)
    windows.put(planned("work", settings), now_ns)
    assert windows.restore([before], now_ns) == []
    assert not windows.going
    windows.move_on(now_ns + 7 * 86_400_000_000_000)
    assert windows.going == bool(days), "and returns each week"


def test_who_acknowledged_is_still_named_when_it_is_back_from_the_shelf() -> None:
    world = AlarmWorld()
    (fan,) = world.told(world.report("fan", "ams1"))
    world.told(world.act("acknowledge", alarm=fan.id, by="ann"))
    world.told(world.act("shelve", alarm=fan.id, seconds=600, by="bob"))
    kept, before = Snapshot(), Snapshot()
    world.stage.snapshot(kept)
    written = read_array(kept, "alarms")
    assert written is not None
    data = msgspec.msgpack.decode(written.tobytes())
    (fields,) = data["foreign"]["alarms"]
    del fields["acknowledged_by"]
    fields["operator"] = "ann"  # it kept the first that did something
    write_array(before, "alarms", np.frombuffer(msgspec.msgpack.encode(data), np.uint8))
    world.stage = world.make_stage()
    world.stage.restore(before)
    (back,) = world.told(seconds=601)
    assert (back.operator_state, back.operator) == ("acknowledged", "ann")
