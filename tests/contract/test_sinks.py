"""Every sink against one list of checks, and against peers that fail, hang, refuse and vanish."""

import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq

from alerting.config import SinkSettings
from alerting.sinks import SINKS, AlertSink, RefusedError, make_sink
from alerting.words.alert import Alert, canonical
from telemetry.errors import TransientError
from tests.support.bad_peers import delayed, free_port
from tests.support.sink_peers import RIGS, HttpPeer, limit_nats
from tocsin.testing import checks_sink
from tocsin.testing.checks_sink import NOW_NS, parcel


@pytest.fixture
def peer() -> Iterator[HttpPeer]:
    made = HttpPeer()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def alerts() -> list[Alert]:
    """A raise and the clear of it, and a raise of another alarm."""
    return checks_sink.alerts()


def http_sink(kind: str, peer: HttpPeer, **more: Any) -> AlertSink:
    return make_sink(SinkSettings(kind=kind, url=peer.url, timeout_seconds=0.3, **more))


HTTP = [
    pytest.param({"kind": "webhook"}, id="webhook"),
    pytest.param({"kind": "webhook", "mode": "batch"}, id="webhook-batch"),
    pytest.param({"kind": "alertmanager"}, id="alertmanager"),
]


@pytest.mark.parametrize("kind", RIGS)
@pytest.mark.parametrize("check", checks_sink.CHECKS, ids=lambda c: c.__name__)
def test_exam(kind: str, check: Callable[[checks_sink.MakeSink], None], tmp_path: Path) -> None:
    with RIGS[kind](tmp_path) as rig:
        check(lambda: make_sink(SinkSettings(**{"timeout_seconds": 5.0, **rig.settings})))


def test_every_kind_sits_the_exam() -> None:
    elsewhere = {"diagnostics"}  # needs an SSH server: tests/live/test_actions.py
    assert set(SINKS.ours) <= set(RIGS) | elsewhere


@pytest.mark.parametrize("settings", HTTP)
@pytest.mark.parametrize("status", [401, 404, 429, 500, 503])
def test_a_failing_peer_is_worth_another_try(
    peer: HttpPeer, alerts: list[Alert], settings: dict[str, Any], status: int
) -> None:
    peer.status = status
    with pytest.raises(TransientError, match=f"answered {status}: what the peer says") as error:
        http_sink(peer=peer, **settings).send([parcel(alerts[0])], now_ns=NOW_NS)
    assert not isinstance(error.value, RefusedError)


@pytest.mark.parametrize("settings", HTTP)
def test_a_peer_that_refuses_the_body_is_not_asked_again(
    peer: HttpPeer, alerts: list[Alert], settings: dict[str, Any]
) -> None:
    peer.status = 422
    with pytest.raises(RefusedError, match="422"):
        http_sink(peer=peer, **settings).send([parcel(alerts[0])], now_ns=NOW_NS)


@pytest.mark.parametrize("settings", HTTP)
def test_a_hanging_peer_is_left_after_the_timeout(
    peer: HttpPeer, alerts: list[Alert], settings: dict[str, Any]
) -> None:
    peer.hangs = True
    with pytest.raises(TransientError, match="timed out"):
        http_sink(peer=peer, **settings).send([parcel(alerts[0])], now_ns=NOW_NS)


@pytest.mark.parametrize("settings", HTTP)
def test_a_peer_that_is_not_there(alerts: list[Alert], settings: dict[str, Any]) -> None:
    sink = make_sink(SinkSettings(url=f"http://127.0.0.1:{free_port()}", **settings))
    with pytest.raises(TransientError, match="refused"):
        sink.send([parcel(alerts[0])], now_ns=NOW_NS)


def garbage(answer: bytes) -> Callable[[socket.socket], None]:
    def serve(listener: socket.socket) -> None:
        made, _ = listener.accept()
        with made:
            made.recv(65536)
            made.sendall(answer)

    return serve


@pytest.mark.parametrize("answer", [b"", b"\x00" * 50, b"HTTP/1.1 abc\r\n\r\n"])
def test_a_peer_that_does_not_speak_http(alerts: list[Alert], answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=garbage(answer), args=(listener,), daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        with pytest.raises(TransientError):
            make_sink(SinkSettings(kind="webhook", url=url)).send(
                [parcel(alerts[0])], now_ns=NOW_NS
            )
        thread.join(5)


def test_the_webhook_sends_cloudevents_whose_data_is_the_alert(
    peer: HttpPeer, alerts: list[Alert], tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("s3cret\n")
    sink = http_sink("webhook", peer, token_file=str(tmp_path / "token"))
    sink.send([parcel(alerts[0], attempt=3)], now_ns=NOW_NS)
    ((headers, event),) = peer.got
    # CloudEvents 1.0.2 section 3.1: required attributes; names are lower-case letters and digits.
    assert event["specversion"] == "1.0"
    assert event["id"] == f"{alerts[0].change}-test"
    assert event["source"]
    assert event["type"] == "tocsin.alarm.raised"
    assert event["subject"] == "192.0.2.1"
    assert all(name.isalnum() and name == name.lower() for name in event)
    assert event["attempt"] == 3
    assert json.dumps(event["data"], sort_keys=True, separators=(",", ":")).encode() == (
        canonical(alerts[0])
    )
    assert headers["Content-Type"] == "application/cloudevents+json; charset=UTF-8"
    assert headers["Idempotency-Key"] == event["id"]
    assert headers["Authorization"] == "Bearer s3cret"


def test_the_webhook_batches_when_asked_to(peer: HttpPeer, alerts: list[Alert]) -> None:
    sink = http_sink("webhook", peer, mode="batch")
    sink.send([parcel(alert) for alert in alerts], now_ns=NOW_NS)
    ((headers, events),) = peer.got
    assert headers["Content-Type"] == "application/cloudevents-batch+json; charset=UTF-8"
    assert [event["id"] for event in events] == [f"{a.change}-test" for a in alerts]


def test_alertmanager_gets_labels_that_stay_from_raise_to_clear(
    peer: HttpPeer, alerts: list[Alert]
) -> None:
    sink = http_sink("alertmanager", peer)
    sink.send([parcel(alerts[0])], now_ns=NOW_NS)
    sink.repeat([alerts[0]], now_ns=NOW_NS + 60_000_000_000)
    sink.send([parcel(alerts[2])], now_ns=NOW_NS)
    raised, again, cleared = (body[0] for _, body in peer.got)
    assert {h["path"] for h, _ in peer.got} == {"/api/v2/alerts"}
    assert raised["labels"] == again["labels"] == cleared["labels"]
    assert raised["labels"]["alertname"] == "exporter-down"
    assert raised["labels"]["severity"] == "major"
    assert raised["startsAt"] == cleared["startsAt"] == "2023-11-14T22:13:20.000Z"
    assert raised["endsAt"] < again["endsAt"]  # the repeat keeps it up
    assert cleared["endsAt"] == "2023-11-14T22:13:40.000Z"


def test_alertmanager_ends_the_alert_of_the_severity_that_was(
    peer: HttpPeer, alerts: list[Alert]
) -> None:
    import msgspec

    worse = msgspec.structs.replace(alerts[0], state="updated", severity="critical")
    http_sink("alertmanager", peer).send([parcel(worse)], now_ns=NOW_NS)
    ((_, body),) = peer.got
    ends = {a["labels"]["severity"]: a["endsAt"] for a in body}
    assert set(ends) == {"critical", "major", "minor", "warning"}
    assert ends["critical"] > ends["major"] == ends["minor"] == ends["warning"]


@pytest.mark.parametrize("told_by", ["send", "repeat"])
def test_alertmanager_ends_what_an_incident_was_before_its_cause_was_found(
    peer: HttpPeer, alerts: list[Alert], told_by: str
) -> None:
    import msgspec

    sink = http_sink("alertmanager", peer)
    sink.send([parcel(alerts[0])], now_ns=NOW_NS)
    moved = msgspec.structs.replace(
        alerts[0], state="updated", kind="link-down", entity="a-b", changed_ns=NOW_NS + 1
    )
    if told_by == "repeat":
        sink.repeat([moved], now_ns=NOW_NS + 1)
    sink.send([parcel(moved)], now_ns=NOW_NS + 1)
    sink.send([parcel(moved)], now_ns=NOW_NS + 2)
    bodies = [body for _, body in peer.got]
    before, after = ("exporter-down", alerts[0].entity), ("link-down", "a-b")
    named = [[(a["labels"]["alertname"], a["labels"]["entity"]) for a in body] for body in bodies]
    (ended,) = [a for a, name in zip(bodies[1], named[1], strict=True) if name == before]
    assert ended["labels"] == bodies[0][0]["labels"]
    assert ended["endsAt"] == "2023-11-14T22:15:00.000Z"
    (goes_on,) = [a for a in bodies[1] if a["endsAt"] > ended["endsAt"]]
    assert goes_on["labels"]["alertname"] == "link-down"
    assert all(name == after for body in named[2:] for name in body), "it is ended once"


def test_alertmanager_ends_what_an_alert_was_earlier_in_the_same_request(
    peer: HttpPeer, alerts: list[Alert]
) -> None:
    moved = msgspec.structs.replace(
        alerts[0], state="updated", kind="link-down", entity="a-b", changed_ns=NOW_NS + 1
    )
    http_sink("alertmanager", peer).send([parcel(alerts[0]), parcel(moved)], now_ns=NOW_NS + 1)
    (body,) = (body for _, body in peer.got)
    ends = {(a["labels"]["alertname"], a["labels"]["severity"]): a["endsAt"] for a in body}
    assert ends["exporter-down", alerts[0].severity] < ends["link-down", alerts[0].severity]


def test_lines_are_canonical_and_a_torn_line_costs_no_other(
    tmp_path: Path, alerts: list[Alert]
) -> None:
    path = tmp_path / "alerts.jsonl"
    path.write_bytes(b'{"torn": ')
    sink = make_sink(SinkSettings(kind="file", path=str(path)))
    sink.send([parcel(alert) for alert in alerts], now_ns=NOW_NS)
    lines = path.read_bytes().splitlines()
    assert lines == [b'{"torn": ', *[canonical(alert) for alert in alerts]]


def test_a_file_that_cannot_be_written_is_worth_another_try(
    tmp_path: Path, alerts: list[Alert]
) -> None:
    sink = make_sink(SinkSettings(kind="file", path=str(tmp_path / "no" / "such" / "folder")))
    with pytest.raises(TransientError, match="No such file"):
        sink.send([parcel(alerts[0])], now_ns=NOW_NS)


def test_stdout_gets_one_line_each(
    capfdbinary: pytest.CaptureFixture[bytes], alerts: list[Alert]
) -> None:
    make_sink(SinkSettings(kind="stdout")).send([parcel(a) for a in alerts], now_ns=NOW_NS)
    assert capfdbinary.readouterr().out.splitlines() == [canonical(a) for a in alerts]


def test_pub_numbers_what_it_says_and_a_busy_port_is_worth_another_try(
    alerts: list[Alert],
) -> None:
    url = f"tcp://127.0.0.1:{free_port()}"
    sink = make_sink(SinkSettings(kind="zmq", url=url))
    sink.send([parcel(alerts[0])], now_ns=NOW_NS)  # number 1: nobody listens yet
    second = make_sink(SinkSettings(kind="zmq", url=url))
    with pytest.raises(TransientError, match="in use"):
        second.send([parcel(alerts[0])], now_ns=NOW_NS)
    context = zmq.Context()
    watcher = context.socket(zmq.SUB)
    watcher.setsockopt(zmq.LINGER, 0)
    watcher.subscribe("alerts")
    watcher.connect(url)
    got: list[tuple[int, bytes]] = []
    for _ in range(200):  # a subscription takes a moment; what is said meanwhile is lost
        sink.send([parcel(alerts[1])], now_ns=NOW_NS)
        while watcher.poll(20):
            topic, number, body = watcher.recv_multipart()
            assert topic == b"alerts"
            got.append((struct.unpack("<Q", number)[0], body))
        if len(got) >= 3:
            break
    numbers = [number for number, _ in got]
    assert len(numbers) >= 3
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert numbers[0] > 1
    assert all(body == canonical(alerts[1]) for _, body in got)
    watcher.close()
    context.term()
    sink.close()


@pytest.mark.parametrize("fault", ["", "refuses", "is no picture", "is away"])
def test_a_mail_shows_the_picture_of_its_alarm_and_goes_without_where_there_is_none(
    peer: HttpPeer, alerts: list[Alert], tmp_path: Path, fault: str
) -> None:
    svg = b'<svg xmlns="http://www.w3.org/2000/svg"></svg>'
    peer.answer = b"<html>" if fault == "is no picture" else svg
    peer.status = 404 if fault == "refuses" else 200
    pictures = f"http://127.0.0.1:{free_port()}" if fault == "is away" else peer.url
    with RIGS["mail"](tmp_path) as rig:
        options = {**rig.settings["options"], "pictures": pictures}
        sink = make_sink(SinkSettings(**{**rig.settings, "options": options}))
        assert sink.send([parcel(alerts[0])], now_ns=NOW_NS)
        (mail,) = rig.messages()
    types = [part.get_content_type() for part in mail.walk()]
    text = ["multipart/alternative", "text/plain"]
    if fault:
        assert types == [*text, "text/html"]
        return
    assert types == [*text, "multipart/related", "text/html", "image/svg+xml"]
    image = list(mail.walk())[-1]
    assert image.get_payload(decode=True) == svg
    assert image.get_content_disposition() == "inline"
    html = list(mail.walk())[-2].get_payload(decode=True).decode()
    assert f'<img src="cid:{image["Content-ID"].strip()[1:-1]}"' in html
    assert peer.got[0][0]["path"] == f"/api/v1/alarms/{alerts[0].id}/picture.svg"


def test_netcool_acknowledges_its_own_row_when_it_owns_the_alarm(
    peer: HttpPeer, alerts: list[Alert]
) -> None:
    peer.answer = b'{"entry": {"affectedRows": 1}}'
    theirs = msgspec.structs.replace(
        alerts[0], source="omnibus", foreign_id="AGG_P:884001", operator_state="acknowledge_asked"
    )
    sink = http_sink("netcool", peer)
    assert sink.send([parcel(theirs)], now_ns=NOW_NS) == "1 rows acknowledged"
    ((about, body),) = peer.got
    where = "filter=ServerName%3D%27AGG_P%27%20and%20ServerSerial%3D884001"
    assert (about["method"], about["path"].endswith(where)) == ("PATCH", True)
    assert body["rowset"]["rows"] == [{"Acknowledged": 1}]
    for bad in ("", "AGG_P:", "x' or 1=1 --:5"):
        with pytest.raises(RefusedError, match="no row of an ObjectServer"):
            sink.send([parcel(msgspec.structs.replace(theirs, foreign_id=bad))], now_ns=NOW_NS)


def test_nats_waits_one_round_trip_for_a_whole_batch_and_refuses_what_is_too_large(
    alerts: list[Alert], tmp_path: Path
) -> None:
    """One after the other a hundred took 8 s at 80 ms each, and so never came through within 5 s."""
    many = [
        parcel(msgspec.structs.replace(alerts[0], id=f"{n:016x}", change=f"{n:016x}-1-raised"))
        for n in range(100)
    ]
    with (
        RIGS["nats"](tmp_path) as rig,
        delayed(int(rig.settings["url"].rpartition(":")[2]), 0.04) as port,
    ):
        settings = SinkSettings(kind="nats", url=f"nats://127.0.0.1:{port}", timeout_seconds=5.0)
        sink = make_sink(settings)
        assert sink.send(many, now_ns=NOW_NS) == "stored in TOCSIN as 100"
        assert "100 were there already" in sink.send(many, now_ns=NOW_NS)
        limit_nats(rig.settings["url"], 300)
        other = msgspec.structs.replace(alerts[1], change="another")
        with pytest.raises(RefusedError, match="size exceeds"):
            sink.send([parcel(other)], now_ns=NOW_NS)
        sink.close()
