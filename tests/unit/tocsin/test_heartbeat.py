"""What the node tells the watchdog of the desk, and of the processes beside it."""

import os
from pathlib import Path

import pytest

from runtime.journal import Cursor
from runtime.parent import PARENT
from tocsin.node.heartbeat import HISTORY_BEHIND, Heartbeat
from tocsin.restarts import FILE, Fared, Kept, keep

NOW_NS = 1_700_000_000_000_000_000


def test_a_cursor_that_cannot_be_looked_at_says_nothing_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beat = Heartbeat(tmp_path)
    assert beat.history_ns(7, NOW_NS) is None, "there is no desk"
    Cursor(tmp_path / "cursors", "history").commit(7)
    assert beat.history_ns(7, NOW_NS) == NOW_NS
    stored_ns = beat.history_ns(8 + HISTORY_BEHIND, NOW_NS)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", refuse)
        assert beat.history_ns(7, NOW_NS) == stored_ns, "as it was when it was last seen"
    (tmp_path / "cursors" / "history").unlink()
    assert beat.history_ns(7, NOW_NS) is None
    beat.stop()


def test_the_desks_place_is_read_when_it_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[int] = []
    load = Cursor.load

    def counted(cursor: Cursor) -> None:
        loads.append(1)
        load(cursor)

    monkeypatch.setattr(Cursor, "load", counted)
    beat, desk = Heartbeat(tmp_path), Cursor(tmp_path / "cursors", "history")
    for place in (7, 8):
        desk.commit(place)
        assert [beat.history_ns(place, NOW_NS + n) for n in range(3)] == [
            NOW_NS + n for n in range(3)
        ]
    assert len(loads) == 2
    behind = beat.history_ns(9 + HISTORY_BEHIND, NOW_NS)
    assert behind == desk.path.stat().st_mtime_ns
    desk.path.write_text("x")
    assert beat.history_ns(9, NOW_NS) == desk.path.stat().st_mtime_ns, (
        "nothing is known of its place"
    )
    beat.stop()


def test_how_the_processes_fare_is_read_when_it_was_kept_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PARENT, str(os.getpid()))
    kept, reads = Kept(tmp_path), list[Path]()
    read = Path.read_bytes

    def counted(path: Path) -> bytes:
        reads.append(path)
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", counted)
    assert kept() == Fared()
    for times in (1, 2):
        keep(tmp_path, Fared({"gate": times}, {"gate": "signal 9"}))
        assert [kept().restarts for _ in range(3)] == [{"gate": times}] * 3
    assert len(reads) == 2
    assert "the gate is down" in kept().faults()["gate"]
    monkeypatch.setenv(PARENT, "1")
    keep(tmp_path, Fared({"gate": 3}))
    assert kept() == Fared(), "another supervisor's"
    (tmp_path / FILE).write_text("{")
    assert kept() == Fared()
    (tmp_path / FILE).unlink()
    assert kept() == Fared()
