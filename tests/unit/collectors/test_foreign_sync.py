"""Open alarms of another manager: each change once, also when the node fails in the middle."""

from pathlib import Path

import pytest

from collectors.foreign_sync import ALARMS_PER_OFFER, REPEAT_NS, AlarmFeed, ForeignAlarm
from telemetry.errors import TransientError
from tests.support.source_world import MemoryNode, world


def alarms(count: int, severity: str = "major") -> list[ForeignAlarm]:
    return [ForeignAlarm("k", f"node-{i}", severity, f"alarm {i}") for i in range(count)]


class Here:
    def __init__(self, folder: Path, *, alarms_max: int = 10_000) -> None:
        self.node: MemoryNode
        self.node, self.clock, self.context = world("other")
        self.folder, self.alarms_max = folder, alarms_max
        self.feed = self.make()

    def make(self) -> AlarmFeed:
        self.feed = AlarmFeed("other", "test", self.context, self.node, self.folder,
                              alarms_max=self.alarms_max)  # fmt: skip
        self.feed.load()
        return self.feed


@pytest.fixture
def here(tmp_path: Path) -> Here:
    return Here(tmp_path)


def test_many_changes_go_in_parts_and_what_failed_goes_again(here: Here) -> None:
    total = 2 * ALARMS_PER_OFFER + 1
    told = 0

    def fails_at_the_second(batches: list, *, token: str = "") -> None:  # type: ignore[type-arg]
        nonlocal told
        told += 1
        if told == 2:
            raise TransientError("away")
        here.node(batches, token=token)

    here.feed._offer = fails_at_the_second
    here.feed.memory["position"] = 7
    with pytest.raises(TransientError):
        here.feed.tell_all(alarms(total), reason="gone")
    assert len(here.node.open_ids()) == ALARMS_PER_OFFER
    assert here.feed.memory == {}  # the source reads the same again
    here.feed.memory["position"] = 7
    assert here.feed.tell_all(alarms(total), reason="gone") == total - ALARMS_PER_OFFER
    assert len(here.node.alarms()) == len(here.node.open_ids()) == total
    assert here.make().memory == {"position": 7}
    assert here.feed.tell_all(alarms(total), reason="gone") == 0


def test_an_open_alarm_is_told_again_lest_it_be_taken_for_forgotten(here: Here) -> None:
    here.feed.tell(alarms(1))
    here.clock.advance(seconds=REPEAT_NS / 1e9 - 1)
    assert here.feed.tell_all(alarms(1), reason="gone") == 0
    here.clock.advance(seconds=1)
    assert here.feed.tell_all(alarms(1), reason="gone") == 1
    assert here.feed.tell_all(alarms(1), reason="gone") == 0


def test_what_an_event_told_while_a_list_was_read_stands(here: Here) -> None:
    here.feed.tell(alarms(2))
    here.clock.advance(seconds=10)
    began_ns, older = here.clock.now_ns(), alarms(2)
    here.clock.advance(seconds=1)
    here.feed.tell([*alarms(1, "cleared"), *alarms(3)[2:]])  # one ends, one begins
    here.clock.advance(seconds=1)
    assert here.feed.tell_all(older, reason="gone", began_ns=began_ns) == 0
    # A later list.
    assert here.feed.tell_all(older, reason="gone", began_ns=here.clock.now_ns()) == 2


def test_beyond_the_limit_alarms_are_told_and_not_followed(tmp_path: Path) -> None:
    here = Here(tmp_path, alarms_max=3)
    assert here.feed.tell(alarms(5)) == 5
    assert here.feed.alarms.full
    assert here.feed.tell_all([], reason="gone") == 3


def test_an_end_is_told_once_also_of_what_was_never_seen(here: Here) -> None:
    assert here.feed.tell(alarms(1, "cleared")) == 1
    assert here.feed.tell(alarms(1, "cleared")) == 0
    assert here.feed.tell(alarms(1)) == 1
    assert here.feed.tell(alarms(1, "cleared")) == 1


def test_what_is_said_to_come_from_the_future_is_from_now(here: Here) -> None:
    now_ns = here.clock.now_ns()
    late = now_ns + 10**15
    here.feed.tell([ForeignAlarm("k", "a", "major", "t", changed_ns=late, raised_ns=late)])
    (row,) = here.node.rows("alarm")
    assert (row["changed_ns"], row["raised_ns"]) == (now_ns, now_ns)
