"""Netcool: alarms of an ObjectServer that counts up, pairs, deletes, fails over and misbehaves."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from collectors.http.client import PeerError
from collectors.managers.netcool import NetcoolOptions, NetcoolSource, alarm_of, row_set
from telemetry.errors import TransientError
from tests.support.netcool_server import ObjectServer
from tests.support.source_world import Polled

HOUR = 3600


Pair = Polled[ObjectServer, NetcoolSource]


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    made = Pair("netcool", NetcoolSource, ObjectServer, tmp_path, user="root")
    yield made
    made.server.close()


def test_raise_update_second_occurrence_and_clear_on_the_same_row(pair: Pair) -> None:
    pair.server.event("a", "ber-1", 4, LocalPriObj="xe-0/0/1")
    assert pair.poll() == [("ber-1:xe-0/0/1", "major", "a")]
    assert pair.poll() == []
    pair.server.event("a", "ber-1", 4)
    assert pair.poll() == [("ber-1:xe-0/0/1", "major", "a")]
    assert pair.node.rows("alarm")[0]["tally"] == 2
    pair.server.change("a", Severity=5, Acknowledged=1, OwnerUID=1042)
    assert pair.poll() == [("ber-1:xe-0/0/1", "critical", "a")]
    assert pair.node.rows("alarm")[0]["operator_state"] == "acknowledged"
    pair.server.change("a", Severity=0)
    assert pair.poll() == [("ber-1:xe-0/0/1", "cleared", "a")]
    assert pair.poll() == []
    assert pair.poll(after=300) == []  # the whole list is read: nothing is new


def test_a_resolution_clears_what_it_pairs_with_and_nothing_later(pair: Pair) -> None:
    pair.server.event("down 1", "ber-1", 5, AlertKey="ifEntry.1")
    pair.server.event("down 2", "ber-1", 5, AlertKey="ifEntry.2")
    assert len(pair.poll()) == 2
    pair.server.event("up 1", "ber-1", 0, AlertKey="ifEntry.1", Type=2)
    assert pair.poll() == [("ber-1", "cleared", "down 1")]
    assert pair.poll() == []  # the automation has not touched the problem row yet
    pair.server.change("down 1", Severity=0)
    assert pair.poll() == []
    pair.server.event("down 1", "ber-1", 5, AlertKey="ifEntry.1")
    assert pair.poll() == [("ber-1", "critical", "down 1")]


def test_a_problem_and_its_resolution_in_one_poll(pair: Pair) -> None:
    pair.poll()
    pair.server.event("down", "ber-1", 5, AlertKey="ifEntry.1")
    pair.server.event("up", "ber-1", 1, AlertKey="ifEntry.1", Type=2)
    assert pair.poll() == [("ber-1", "cleared", "down")]


def test_a_deleted_row_is_cleared_with_the_reason(pair: Pair) -> None:
    pair.server.event("a", "ber-1", 4)
    pair.server.event("b", "ber-2", 4)
    pair.poll()
    pair.server.delete("a")
    assert pair.poll() == []  # deletes show in no change of a row
    assert pair.poll(after=300) == [("ber-1", "cleared", "a")]
    assert pair.node.rows("alarm")[0]["additional_text"] == "no longer open at AGG_P"


def test_five_thousand_alarms_a_page(pair: Pair) -> None:
    pair.server.page_rows = 5_000
    pair.server.storm("a", 6_000, 3)
    pair.poll()
    assert len(pair.node.open_ids()) == 6_000
    assert len(pair.server.http.asked) == 3  # the last one finds nothing new
    pair.server.storm("b", 5_500, 2)  # within a second: more than a page of changes
    assert len(pair.poll()) == 5_500


def test_a_failover_raises_nothing_twice(pair: Pair) -> None:
    for i in range(20):
        pair.server.event(f"a{i}", "ber-1", 4)
    pair.poll()
    pair.server.fail_over()
    assert pair.poll(after=300) == []
    pair.server.change("a3", Severity=0)
    assert pair.poll() == [("ber-1", "cleared", "a3")]


def test_401_in_mid_poll_clears_nothing_and_is_made_up_for(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    pair.server.page_rows = 10
    for i in range(35):
        pair.server.event(f"a{i:02}", "ber-1", 4)
    pair.poll()
    assert len(pair.node.open_ids()) == 35
    pair.server.deny_after = 2  # two pages of the next whole list, then the account is locked
    pair.server.delete("a07")
    pair.clock.advance(seconds=300)
    pair.node.clear()
    waits = [pair.source._poller.turn() for _ in range(5)]
    assert pair.node.alarms() == []
    assert waits == [60.0, 120.0, 240.0, 480.0, 600.0]
    lines = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(lines) == 1  # one trouble, one line
    assert "answered 401" in lines[0]
    assert "check user, password_file" in lines[0]
    assert "401" in pair.source.health()
    pair.server.deny_after = -1
    pair.server.event("new", "ber-9", 5)
    pair.source._poller.turn()
    assert sorted(pair.node.alarms()) == [("ber-1", "cleared", "a07"), ("ber-9", "critical", "new")]
    assert pair.source.health() == ""


def test_wrong_credentials_are_told_without_them(pair: Pair, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("wrong-s3cret")
    with pytest.raises(PeerError, match="answered 401") as caught:
        pair.source.turn()
    assert "wrong-s3cret" not in str(caught.value)


@pytest.mark.parametrize("sends_date", [True, False])
@pytest.mark.parametrize("hours", [2, -2])
def test_a_clock_two_hours_off_is_corrected(pair: Pair, hours: int, sends_date: bool) -> None:
    pair.server.clock_ahead_seconds = hours * HOUR
    pair.server.sends_date = sends_date
    pair.server.event("old", "ber-1", 4)
    pair.poll()
    pair.poll()
    pair.clock.advance(seconds=10)
    pair.server.event("new", "ber-2", 4)
    happened_ns = pair.clock.now_ns()
    assert pair.poll(after=10) == [("ber-2", "major", "new")]
    (row,) = pair.node.rows("alarm")
    assert abs(row["raised_ns"] - happened_ns) <= 61 * 10**9
    pair.server.change("new", Severity=0)
    assert pair.poll() == [("ber-2", "cleared", "new")]
    pair.poll()
    (told,) = {row["clock_offset_ns"] for row in pair.node.rows("ledger")} or {0}
    assert abs(told - hours * HOUR * 10**9) <= 61 * 10**9


@pytest.mark.parametrize("encoding", ["utf-8", "iso-8859-1"])
def test_texts_in_either_encoding(pair: Pair, encoding: str) -> None:
    pair.server.encoding = encoding
    pair.server.event("a", "köln-1", 4, Summary="Lüfter\x00 ausgefallen")
    assert pair.poll() == [("köln-1", "major", "Lüfter  ausgefallen")]


def test_nothing_is_lost_while_the_node_is_away(pair: Pair) -> None:
    pair.server.event("a", "ber-1", 4)
    pair.node.away = True
    for _ in range(3):
        pair.clock.advance(seconds=30)
        with pytest.raises(TransientError):
            pair.source.turn()
    pair.server.event("b", "ber-1", 4)
    pair.node.away = False
    assert len(pair.poll()) == 2


def test_a_restart_tells_nothing_twice_and_sees_what_went_meanwhile(pair: Pair) -> None:
    pair.server.event("a", "ber-1", 4)
    pair.server.event("b", "ber-1", 4)
    pair.poll()
    pair.source.stop()
    pair.server.delete("b")
    pair.make()
    assert pair.poll() == [("ber-1", "cleared", "b")]


def test_a_lost_answer_of_the_node_counts_once(pair: Pair) -> None:
    pair.server.event("a", "ber-1", 4)
    pair.node.forgets_to_answer = True
    with pytest.raises(TransientError):
        pair.source.turn()
    pair.node.forgets_to_answer = False
    pair.source.turn()
    assert len(pair.node.alarms()) == 1


def test_damaged_state_is_set_aside_and_all_is_read_again(pair: Pair) -> None:
    pair.server.event("a", "ber-1", 4)
    pair.poll()
    (pair.folder / "open_alarms.state").write_bytes(b"\x00" * 40)
    pair.make()
    assert pair.poll() == [("ber-1", "major", "a")]
    assert [p.name.split(".damaged")[0] for p in pair.folder.glob("*.damaged*")] == [
        "open_alarms.state"
    ]


def test_states_are_no_severities(pair: Pair) -> None:
    pair.server.event("a", "ber-1", 4, SuppressEscl=6)
    pair.poll()
    assert pair.node.rows("alarm")[0]["suppressed"] == "maintenance"


def test_our_own_rows_and_those_outside_the_filter_are_not_read(pair: Pair) -> None:
    pair.make(filter="Service = 'metro' OR Service = 'core'", severities={"2": "minor"})
    pair.server.event("ours", "ber-1", 5, Manager="tocsin", Service="metro")
    pair.server.event("else", "ber-1", 5, Service="office")
    pair.server.event("metro", "ber-1", 2, Service="metro")
    assert pair.poll() == [("ber-1", "minor", "metro")]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'{"rowset": 3}', b'{"rowset": {"rows": [3]}}', b"<html>", b"[" * 90_000],
)
def test_an_answer_that_is_no_row_set_is_trouble_not_an_empty_list(pair: Pair, body: bytes) -> None:
    pair.server.event("a", "ber-1", 4)
    pair.poll()
    pair.server.body = body
    pair.clock.advance(seconds=300)
    with pytest.raises(PeerError, match="no row set"):
        pair.source.turn()
    assert len(pair.node.open_ids()) == 1


def test_the_composed_sample(shared: Path) -> None:
    body = (shared / "specs/samples/netcool_get_alerts_status.json").read_bytes()
    rows, affected, server = row_set(body)
    assert (len(rows), affected, server) == (3, 3, "AGG_P")
    down, _, radio = (alarm_of(row, 0, NetcoolOptions(url="http://x")) for row in rows)
    assert down is not None
    assert radio is not None
    assert (down.entity, down.severity, down.occurrence) == ("ber-agg-01:xe-0/0/17", "critical", 3)
    assert (down.event_type, down.probable_cause) == ("communicationsAlarm", "lossOfSignal")
    assert down.detail["RemoteNodeAlias"] == "ber-edge-07"
    assert (radio.acknowledged, radio.owner, radio.probable_cause) == (
        True,
        "1042",
        "thresholdCrossed",
    )
    empty = (shared / "specs/samples/netcool_get_empty.json").read_bytes()
    assert row_set(empty) == ([], 0, "AGG_P")


def test_the_emulator_speaks_as_the_sample(pair: Pair, shared: Path) -> None:
    """The columns we ask for are columns that the sample has: none is our invention."""
    pair.server.event("a", "ber-1", 4)
    pair.poll()
    sample = json.loads((shared / "specs/samples/netcool_get_alerts_status.json").read_text())
    known = {column["name"] for column in sample["rowset"]["coldesc"]}
    from collectors.managers.netcool import COLUMNS

    assert set(COLUMNS) <= known
