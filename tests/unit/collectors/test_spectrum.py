"""Spectrum: alarms of a OneClick server that pages, fails over, keeps silent and misbehaves."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from collectors.http.client import PeerError
from collectors.managers.spectrum import SpectrumOptions, SpectrumSource, alarm_of
from collectors.managers.spectrum_answers import Found, page_of, subscription_of
from telemetry.errors import TransientError
from tests.support.source_world import Polled
from tests.support.spectrum_server import OneClick

DIALECTS = ("new", "old", "xml")


class Pair(Polled[OneClick, SpectrumSource]):
    """As any, with a poll of the whole list."""

    def list(self) -> list[tuple[str, str, str]]:
        """Let the next poll be one of the whole list."""
        return self.poll(after=120.0)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    made = Pair("spectrum", SpectrumSource, OneClick, tmp_path, user="noc")
    yield made
    made.server.close()


@pytest.mark.parametrize("dialect", DIALECTS)
def test_raise_change_and_end_in_every_dialect(pair: Pair, dialect: str) -> None:
    pair.server.dialect = dialect
    pair.make(format="xml" if dialect == "xml" else "json")
    assert pair.poll() == []
    one = pair.server.alarm("ber-1_xe-0/0/1", **{"0x10000": "Gen_IF_Port"})
    assert pair.poll() == [("ber-1:xe-0/0/1", "critical", "ALARM ON ber-1_xe-0/0/1")]
    pair.server.alarm("ber-2", severity=1)
    assert pair.poll() == [("ber-2", "minor", "ALARM ON ber-2")]
    pair.server.change(one, **{"0x11f4d": "true", "0x11f57": "jdoe"})
    assert len(pair.list()) == 1
    (row,) = pair.node.rows("alarm")
    assert (row["operator_state"], row["operator"]) == ("acknowledged", "jdoe")
    pair.server.end(one)
    assert pair.poll() == []
    assert pair.list() == [("ber-1:xe-0/0/1", "cleared", "ALARM ON ber-1_xe-0/0/1")]


@pytest.mark.parametrize("subscription", [False, True])
def test_a_second_occurrence_that_is_told_to_nobody_is_found_by_the_list(
    pair: Pair, subscription: bool
) -> None:
    pair.make(subscription=subscription)
    pair.poll()
    one = pair.server.alarm("ber-1")
    assert len(pair.poll()) == 1
    pair.server.again(one)
    pair.clock.advance(seconds=60)
    assert len(pair.list()) == 1
    assert pair.node.rows("alarm")[0]["tally"] == 2


@pytest.mark.parametrize("dialect", DIALECTS)
def test_pages_are_followed_on_the_host_we_know(pair: Pair, dialect: str) -> None:
    pair.server.dialect = dialect
    pair.server.throttle_max = 7
    for i in range(30):
        pair.server.alarm(f"node-{i}")
    assert len(pair.poll()) == 30
    assert len(pair.server.http.asked) == 5


def test_a_list_that_is_not_whole_clears_nothing(pair: Pair) -> None:
    pair.server.throttle_max = 7
    for i in range(10):
        pair.server.alarm(f"node-{i}")
    pair.poll()
    pair.server.drops_last_page = True
    pair.clock.advance(seconds=120)
    with pytest.raises(PeerError, match="7 of 10 alarms came"):
        pair.source.turn()
    assert len(pair.node.open_ids()) == 10


@pytest.mark.parametrize("new_times", [False, True])
def test_ids_that_change_at_a_failover_raise_and_clear_nothing(pair: Pair, new_times: bool) -> None:
    for i in range(10):
        pair.server.alarm(f"node-{i}")
    pair.server.alarm("node-3", **{"0x12b4c": "ANOTHER OF THE SAME CAUSE"})
    pair.poll()
    before = pair.node.open_ids()
    assert len(before) == 11
    pair.server.fail_over(new_times=new_times)
    pair.poll()  # asks for what is new: alarms with other ids, so the list is read at once
    assert {row["alarm_id"] for row in pair.node.rows("alarm")} <= before
    assert all(state != "cleared" for _, state, _ in pair.node.alarms())
    assert pair.list() == []


def test_several_alarms_of_one_model_and_cause_end_one_by_one(pair: Pair) -> None:
    first = pair.server.alarm("ber-1", **{"0x12b4c": "PEER 1 LOST"})
    second = pair.server.alarm("ber-1", **{"0x12b4c": "PEER 2 LOST"})
    assert len(pair.poll()) == 2
    pair.server.end(first)
    assert pair.list() == [("ber-1", "cleared", "PEER 1 LOST")]
    pair.server.fail_over()
    third = pair.server.alarm("ber-1", **{"0x12b4c": "PEER 3 LOST"})
    told = pair.list()
    assert ("ber-1", "critical", "PEER 3 LOST") in told
    assert all(state != "cleared" for _, state, _ in told)
    pair.server.end(third)
    assert pair.list() == [("ber-1", "cleared", "PEER 3 LOST")]
    assert second not in {row["foreign_id"] for row in pair.node.rows("alarm")}


def test_a_landscape_that_is_away_for_one_list_clears_nothing(pair: Pair) -> None:
    alarms = [pair.server.alarm(f"node-{i}") for i in range(200)]
    pair.poll()
    pair.server.hidden = set(alarms[:150])
    assert pair.list() == []
    pair.server.hidden = set()
    assert pair.list() == []
    pair.server.hidden = set(alarms[:150])
    assert pair.list() == []
    assert len(pair.list()) == 150  # the second list in a row says the same


def test_maintenance_and_suppressed_are_states_and_no_severities(pair: Pair) -> None:
    pair.server.alarm("a", severity=4)
    pair.server.alarm("b", severity=5)
    pair.server.alarm("c", severity=6)
    pair.poll()
    told = {row["entity"]: (row["severity"], row["suppressed"]) for row in pair.node.rows("alarm")}
    assert told == {
        "a": ("indeterminate", "maintenance"),
        "b": ("indeterminate", "suppressed"),
        "c": ("indeterminate", ""),
    }


def test_401_in_mid_poll_is_one_line_and_a_growing_pause(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    pair.server.throttle_max = 2
    for i in range(6):
        pair.server.alarm(f"node-{i}")
    pair.poll()
    pair.server.deny_after = 1
    pair.clock.advance(seconds=120)
    assert [pair.source._poller.turn() for _ in range(3)] == [60.0, 120.0, 240.0]
    lines = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(lines) == 1
    assert "answered 401" in lines[0]
    assert len(pair.node.open_ids()) == 6
    pair.server.deny_after = -1
    pair.source._poller.turn()
    assert pair.source.health() == ""


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("encoding", ["utf-8", "iso-8859-1"])
def test_texts_in_either_encoding(pair: Pair, dialect: str, encoding: str) -> None:
    pair.server.dialect, pair.server.encoding = dialect, encoding
    pair.server.alarm("köln-1")
    assert pair.poll() == [("köln-1", "critical", "ALARM ON köln-1")]


def test_a_clock_two_hours_off_is_corrected(pair: Pair) -> None:
    pair.server.clock_ahead_seconds = 7_200
    pair.poll()
    pair.server.alarm("ber-1")
    happened_ns = pair.clock.now_ns()
    assert len(pair.poll()) == 1
    assert abs(pair.node.rows("alarm")[0]["raised_ns"] - happened_ns) <= 61 * 10**9
    assert pair.poll() == []
    assert pair.node.rows("ledger")[0]["clock_offset_ns"] >= 7_100 * 10**9


def test_a_subscription_that_is_lost_is_made_again(pair: Pair) -> None:
    pair.make(subscription=True)
    pair.poll()
    pair.server.alarm("ber-1")
    pair.server.forget_subscriptions()
    pair.clock.advance(seconds=30)
    with pytest.raises(PeerError, match="404"):
        pair.source.turn()
    assert len(pair.poll()) == 1  # by the list
    pair.server.alarm("ber-2")
    assert pair.poll() == [("ber-2", "critical", "ALARM ON ber-2")]
    pair.source.stop()
    assert pair.server.http.asked[-1].method == "DELETE"


def test_nothing_is_lost_while_the_node_is_away(pair: Pair) -> None:
    pair.server.alarm("a")
    pair.node.away = True
    with pytest.raises(TransientError):
        pair.source.turn()
    pair.node.away = False
    pair.server.alarm("b")
    assert len(pair.poll()) == 2


def test_a_restart_tells_nothing_twice(pair: Pair) -> None:
    one = pair.server.alarm("a")
    pair.server.alarm("b")
    pair.poll()
    pair.source.stop()
    pair.server.end(one)
    pair.make()
    assert pair.poll() == [("a", "cleared", "ALARM ON a")]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"<a>", b"<a/>", b"<html></html>", b'{"alarm-response-list": 3}', b"[" * 90_000,
     b'<!DOCTYPE a [<!ENTITY b "c">]><alarm-response-list/>'],
)  # fmt: skip
def test_an_answer_that_is_no_list_is_trouble_not_an_empty_list(pair: Pair, body: bytes) -> None:
    pair.server.alarm("a")
    pair.poll()
    pair.server.body = body
    pair.clock.advance(seconds=120)
    with pytest.raises(PeerError, match="no list of alarms"):
        pair.source.turn()
    assert len(pair.node.open_ids()) == 1


def test_the_composed_samples(shared: Path) -> None:
    folder = shared / "specs/samples"
    pages = {
        name: page_of((folder / name).read_bytes())
        for name in (
            "spectrum_alarms_page1.xml",
            "spectrum_alarms_new.json",
            "spectrum_alarms_old_ns1.json",
        )
    }
    first, *others = pages.values()
    assert all(page == first for page in others)
    assert (len(first.alarms), first.total) == (2, 3)
    assert first.following.endswith(
        "/alarms?id=673075bf-e65b-4f3b-aed6-28fadf53d511&start=2&throttlesize=2"
    )
    last = page_of((folder / "spectrum_alarms_page2_end.xml").read_bytes())
    assert (len(last.alarms), last.following) == (1, "")
    alone = page_of((folder / "spectrum_alarms_single_collapsed.json").read_bytes())
    assert alone.alarms == first.alarms[:1]
    options = SpectrumOptions(url="http://x")
    port, device, radio = (alarm_of(a, 0, 0, options) for a in [*first.alarms, *last.alarms])
    assert (port.entity, port.severity, port.kind, port.qualifier) == (
        "ber-agg-01:xe-0/0/17", "critical", "0x1030c", "0x1003a8",
    )  # fmt: skip
    assert (device.suppressed, device.detail["secondary"]) == ("suppressed", True)
    assert (radio.owner, radio.acknowledged, radio.detail["ticket"]) == ("jdoe", True, "INC0012345")
    made = (folder / "spectrum_subscription_response.json").read_bytes()
    assert subscription_of(made) == "0b1c9a52-4f5e-4a51-9a7e-1f0f5d0c7d11"


def test_a_cause_is_the_same_in_decimal_and_hexadecimal() -> None:
    both = [
        Found("1", {"0x129fa": "0x1003A8", "0x11f50": cause}).base for cause in ("66316", "0x1030C")
    ]
    assert both == [("0x1003a8", "0x1030c")] * 2
