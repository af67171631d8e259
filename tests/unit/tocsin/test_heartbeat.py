"""What the node tells the watchdog of the desk."""

from pathlib import Path

import pytest

from runtime.journal import Cursor
from tocsin.node.heartbeat import HISTORY_BEHIND, Heartbeat

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
