"""A power cut at any moment loses no committed tick of the outbox.

The outbox runs under strace, which tells every write and sync of its files in order. From that the
disk is put together as a power cut would leave it: what was synced is there, of what was not each
write is there, torn at a sector, or missing, as a seeded die falls; also where one sync in so many fails
and loses what it was for.
"""

import contextlib
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alerting.config import AlertingSettings, SinkSettings
from alerting.outbox.outbox import Outbox
from tests.support.power_cut import Disk, told_by
from tocsin.testing import make_context

pytestmark = pytest.mark.live
CUTS, CUTS_DEEP = 20, 60
SETTINGS = AlertingSettings(sinks={"a": SinkSettings(kind="stdout")})
CHILD = """
import json, os, sys
from pathlib import Path
from alerting.config import AlertingSettings, SinkSettings
from alerting.words.delivery import Verdict
from alerting.outbox.outbox import Outbox
from tocsin.testing import make_context
from tocsin.testing.alarms import AlarmWorld

world = AlarmWorld()
outbox = Outbox(Path(sys.argv[1]), AlertingSettings(sinks={"a": SinkSettings(kind="stdout")}),
                make_context())
outbox.start()
series = [world.series("exporter", exporter=f"192.0.2.{i}") for i in range(1, 40)]
for tick in range(220):
    down = series[tick % 30 : tick % 30 + 9] if tick % 10 < 5 else []
    batches = world.batches([world.silence(s) for s in down])
    outbox.commit(world.now_ns, [b for b in batches if b.schema.name == "alarm"], 0,
                  incidents=[b for b in batches if b.schema.name == "incident"])
    outbox.rest()
    if outbox.trouble:  # it waits in memory
        continue
    told = {"end": world.now_ns,
            "alarms": sorted([a["id"], a["state"]] for a in outbox.alarms(active_only=False,
                                                                          limit=1000)),
            "changes": len(outbox.changes(limit=100000))}
    os.write(1, b"ack " + json.dumps(told).encode() + b"\\n")
    if tick % 3 == 0:
        outbox.mark([Verdict(number=d.number, key=d.key, sent=True) for d in outbox.due(1, 5)], 1)
outbox.stop()
"""


@pytest.mark.parametrize("refuse", ["", "14+5"], ids=["syncs", "syncs-that-fail"])
def test_a_power_cut_at_any_moment_loses_no_committed_tick(
    tmp_path: Path, needs: Callable[..., None], deep: bool, refuse: str
) -> None:
    needs("strace")
    folder, log = tmp_path / "state", tmp_path / "log"
    folder.mkdir()
    story = told_by(CHILD, folder / "node.sqlite", log, refuse=refuse)
    assert (sum(step[0] == "refused" for step in story) > 20) == bool(refuse)
    acks = [json.loads(data or b"") for call, _, _, data in story if call == "ack"]
    assert (100 if refuse else 219) < len(acks) <= 220
    assert any(call == "write" and name == "node.sqlite" for call, name, _, _ in story[200:])
    first = next(i for i, step in enumerate(story) if step[0] == "ack")
    die, many = np.random.default_rng(7), CUTS_DEEP if deep else CUTS
    cuts = sorted(die.choice(np.arange(first, len(story)), many, replace=False).tolist())
    disk, at, acked, lost_writes = Disk(), 0, 0, 0
    for cut in cuts:
        for call, name, offset, data in story[at:cut]:
            disk.take(call, name, offset, data, folder.name)
            acked += call == "ack"
        at = cut
        lost_writes += sum(
            len(writes) for name, writes in disk.pending.items() if "shm" not in name
        )
        check(tmp_path / f"cut{cut}", disk.after_cut(die), acks, acked)
    assert lost_writes > many / 4  # the cuts did fall between writes and their sync


def check(folder: Path, files: dict[str, bytes], acks: list[dict[str, Any]], acked: int) -> None:
    """Open what is left and compare it with what was said when its last tick was committed."""
    folder.mkdir()
    for name, data in files.items():
        if not name.endswith("-shm"):  # an index in shared memory: it never survives a reboot
            (folder / name).write_bytes(data)
    outbox = Outbox(folder / "node.sqlite", SETTINGS, make_context())
    outbox.start()
    assert outbox.damaged == ""
    with contextlib.closing(sqlite3.connect(folder / "node.sqlite")) as db:
        ((done,),) = db.execute("select coalesce(max(tick_end_ns), 0) from done")
    ends = [ack["end"] for ack in acks]
    assert done >= ends[acked - 1], "a committed tick is gone"
    assert done <= acks[acked]["end"] if acked < len(acks) else True, "one came from nowhere"
    assert all(outbox.is_done(end) for end in ends if end <= done)
    if done in ends:  # else a commit whose sync had failed: what it holds is told with the next
        told = acks[ends.index(done)]
        found = outbox.alarms(active_only=False, limit=1000)
        assert sorted([alarm["id"], alarm["state"]] for alarm in found) == told["alarms"]
        assert len(outbox.changes(limit=100_000)) == told["changes"]
    outbox.stop()
