"""TMF642 as its clients use it: list, filter, page, acknowledge, subscribe, hear of changes."""

import contextlib
import http.client
import json
import socket
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest

from alerting.config import SinkSettings
from alerting.sinks import make_sink
from alerting.sinks.tmf642_http import server
from alerting.words.alert import Alert
from alerting.words.delivery import Order
from runtime.clock import SystemClock
from telemetry.errors import ConfigError
from tests.support.bad_peers import free_port
from tocsin.testing import checks_sink
from tocsin.testing.checks_sink import NOW_NS, parcel

CLOCK = SystemClock()


class Client:
    """A TMF642 client and the sink that it asks."""

    def __init__(self, folder: Path, **more: Any) -> None:
        self.listen = f"127.0.0.1:{free_port()}"
        self.settings = SinkSettings(
            kind="tmf642", path=str(folder / "hubs.json"), options={"listen": self.listen}, **more
        )
        self.sink: Any = make_sink(self.settings)
        self.sink.repeat([], now_ns=NOW_NS)
        self.token = ""

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any, dict[str, str]]:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        url = f"http://{self.listen}/tmf-api/alarm/v4{path}"
        request = urllib.request.Request(url, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                text = answer.read()
                return answer.status, json.loads(text) if text else None, dict(answer.headers)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read()), dict(error.headers)


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    made = Client(tmp_path)
    yield made
    made.sink.close()


@pytest.fixture(scope="module")
def alerts() -> list[Alert]:
    return checks_sink.alerts()


def many(alerts: list[Alert], count: int) -> list[Alert]:
    return [
        msgspec.structs.replace(
            alerts[0], id=f"{n:016x}", entity=f"r{n}", severity="critical" if n % 2 else "minor"
        )
        for n in range(count)
    ]


def test_what_is_up_is_there_after_a_restart_and_what_ended_unseen_is_gone(
    client: Client, alerts: list[Alert]
) -> None:
    client.sink.repeat(many(alerts, 3), now_ns=NOW_NS)
    assert len(client.ask("GET", "/alarm")[1]) == 3
    client.sink.repeat(many(alerts, 3)[:1], now_ns=NOW_NS)
    status, found, _ = client.ask("GET", "/alarm")
    assert (status, [one["id"] for one in found]) == (200, [f"{0:016x}"])


def test_filters_fields_and_pages(client: Client, alerts: list[Alert]) -> None:
    client.sink.repeat(many(alerts, 10), now_ns=NOW_NS)
    status, found, headers = client.ask(
        "GET", "/alarm?perceivedSeverity=critical&limit=2&offset=1&fields=state"
    )
    assert status == 206
    assert (headers["X-Total-Count"], headers["X-Result-Count"]) == ("5", "2")
    assert [set(one) for one in found] == [{"id", "href", "state"}] * 2
    assert client.ask("GET", "/alarm?alarmedObject.id=r4")[1][0]["id"] == f"{4:016x}"
    assert client.ask("GET", "/alarm?alarmRaisedTime.gt=2100-01-01")[1] == []
    assert client.ask("GET", "/alarm?fields=alarmedObject.id")[1][0].keys() == {
        "id",
        "href",
        "alarmedObject",
    }
    assert client.ask("GET", "/alarm/unknown")[0] == 404
    assert client.ask("GET", "/alarm?limit=x")[0] == 400


RAISED = "2023-11-14T22:13:20"  # UTC


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("perceivedSeverity=critical,minor", 10),
        ("perceivedSeverity=critical&perceivedSeverity=minor", 10),
        ("perceivedSeverity.eq=critical", 5),
        ("perceivedSeverity.ne=critical", 5),
        ("specificProblem=a,%20b", 1),
        ("affectedService.id=two", 1),
        (f"alarmRaisedTime.gte={RAISED}Z", 10),
        (f"alarmRaisedTime.gt={RAISED}Z", 0),
        ("alarmRaisedTime.gte=2023-11-14T23:13:20%2B01:00", 10),
        ("alarmRaisedTime.gte=2023-11-14T23:13:20+01:00", 10),
        ("alarmRaisedTime.lt=2023-11-14T23:13:20%2B01:00", 0),
        ("alarmRaisedTime.gt=2023-11-14", 10),
        ("alarmClearedTime.gt=2000-01-01", 0),
    ],
)
def test_filters_mean_what_they_say(
    client: Client, alerts: list[Alert], query: str, count: int
) -> None:
    made = many(alerts, 10)
    made[1] = msgspec.structs.replace(made[1], title="a, b", explain={"touches": ["one", "two"]})
    client.sink.repeat(made, now_ns=NOW_NS)
    assert len(client.ask("GET", f"/alarm?{query}")[1]) == count


def test_a_pattern_that_holds_a_comma_is_that_text(client: Client, alerts: list[Alert]) -> None:
    one, other = many(alerts, 2)
    client.sink.repeat([msgspec.structs.replace(one, title="a, b"), other], now_ns=NOW_NS)
    journal = Journal(client)
    body = {"ackUserId": "ann", "alarmPattern": [{"specificProblem": "a, b"}]}
    asked = journal.asking("POST", "/ackAlarms", body)
    orders = journal.heard(1)
    client.sink.journalled(orders)
    assert [one["id"] for one in asked.result(5)[1]["ackedAlarm"]] == [one.id]


def test_who_reads_page_by_page_misses_nothing_that_changes_meanwhile(
    client: Client, alerts: list[Alert]
) -> None:
    made = many(alerts, 9)
    client.sink.repeat(made, now_ns=NOW_NS)
    seen: set[str] = set()
    for page in range(3):
        found = client.ask("GET", f"/alarm?limit=3&offset={3 * page}")[1]
        seen |= {one["id"] for one in found}
        for number, state in ((0, "updated"), (1, "cleared")):
            changed = msgspec.structs.replace(made[number], state=state)
            client.sink.send([parcel(changed, page + 1)], now_ns=NOW_NS)
    assert seen == {one.id for one in made}


def test_ten_thousand_alarms_are_shown_at_once(client: Client, alerts: list[Alert]) -> None:
    """Each asked how many of the others were over: 29 s, in which nobody was answered."""
    began_ns = CLOCK.monotonic_ns()
    client.sink.repeat(many(alerts, 10_000), now_ns=NOW_NS)
    assert CLOCK.monotonic_ns() - began_ns < 15 * 10**9  # a bound, not a measurement
    assert client.ask("GET", "/alarm?limit=0")[2]["X-Total-Count"] == "10000"


def test_of_what_is_over_the_last_are_shown(
    client: Client, alerts: list[Alert], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alerting.sinks.tmf642.CLEARED_MAX", 2)
    monkeypatch.setattr("alerting.sinks.tmf642.ALARMS_MAX", 4)
    made = many(alerts, 6)
    for one in made[:4]:
        client.sink.send([parcel(one)], now_ns=NOW_NS)
    for one in made[:3]:
        client.sink.send([parcel(msgspec.structs.replace(one, state="cleared"))], now_ns=NOW_NS)
    shown = [one["id"] for one in client.ask("GET", "/alarm")[1]]
    assert shown == [one.id for one in made[1:4]]
    for one in made[4:]:
        client.sink.send([parcel(one)], now_ns=NOW_NS)
    shown = [one["id"] for one in client.ask("GET", "/alarm")[1]]
    assert shown == [one.id for one in made[2:]]


class Journal:
    """What the gate and a node do with orders: hear them, and say when they are on disk."""

    def __init__(self, client: Client) -> None:
        self._sink = client.sink
        self._pool = ThreadPoolExecutor(4)
        self._client = client

    def asking(self, *request: Any) -> Future[Any]:
        """A client asks, and waits for its answer."""
        return self._pool.submit(self._client.ask, *request)

    def heard(self, count: int) -> list[Order]:
        orders: list[Order] = []
        while len(orders) < count:
            orders += self._sink.hear(now_ns=NOW_NS)
            CLOCK.sleep(0.01)
        return orders


def test_orders_of_clients_reach_the_node_and_are_answered_when_it_has_journalled_them(
    client: Client, alerts: list[Alert]
) -> None:
    first, second = many(alerts, 2)
    client.sink.repeat([first, second], now_ns=NOW_NS)
    journal = Journal(client)
    body = {
        "ackSystemId": "umbrella",
        "ackUserId": "ann",
        "alarmPattern": [{"alarmedObject": {"id": "r0"}}],
    }
    asked = journal.asking("POST", "/ackAlarms", body)
    orders = journal.heard(1)
    assert not asked.done(), "answered before the journal has it"
    client.sink.journalled(orders)
    status, task, _ = asked.result(5)
    assert (status, task["state"]) == (201, "done")
    assert [one["id"] for one in task["ackedAlarm"]] == [first.id]
    assert client.ask("GET", f"/ackAlarms/{task['id']}")[1]["state"] == "done"
    comment = {"comment": [{"comment": "crew \x00<b>out</b>", "userId": "bob"}]}
    asked = journal.asking("PATCH", f"/alarm/{second.id}", {**comment, "state": "cleared"})
    two = journal.heard(2)
    client.sink.journalled(two[:1])
    assert not asked.done(), "answered before the journal has all of it"
    client.sink.journalled(two[1:])
    assert asked.result(5)[0] == 200
    orders += two
    assert [(o.do, o.id, o.by) for o in orders] == [
        ("acknowledge", first.id, "ann"), ("comment", second.id, "bob"), ("clear", second.id, "TMF642"),
    ]  # fmt: skip
    assert orders[1].text == "crew \ufffd<b>out</b>"
    assert client.ask("GET", f"/alarm/{second.id}")[1]["comment"][0]["comment"] == orders[1].text
    # The same words again are another wish, also to a gate that was restarted.
    asked = journal.asking("POST", "/ackAlarms", body)
    (again,) = journal.heard(1)
    client.sink.journalled([again])
    assert asked.result(5)[0] == 201
    assert again.key not in {order.key for order in orders}
    # What the node made of it comes back as a change of the alarm, for all to see.
    taken = msgspec.structs.replace(
        first, state="updated", operator_state="acknowledged", operator="ann"
    )
    client.sink.send([parcel(taken)], now_ns=NOW_NS)
    assert client.ask("GET", f"/alarm/{first.id}")[1]["ackState"] == "acknowledged"


def test_who_orders_something_of_a_node_that_is_away_is_told(
    client: Client, alerts: list[Alert], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alerting.sinks.tmf642.JOURNALLED_SECONDS", 0.05)
    (one,) = many(alerts, 1)
    client.sink.repeat([one], now_ns=NOW_NS)
    status, answer, _ = client.ask("PATCH", f"/alarm/{one.id}", {"ackState": "acknowledged"})
    assert status == 503
    assert "journalled" in answer["reason"]


@pytest.mark.parametrize(("most", "status"), [(2, 400), (3, 503)])
def test_a_request_is_ordered_whole_or_not_at_all(
    client: Client, alerts: list[Alert], monkeypatch: pytest.MonkeyPatch, most: int, status: int
) -> None:
    monkeypatch.setattr("alerting.sinks.tmf642.ORDERS_MAX", most)
    monkeypatch.setattr("alerting.sinks.tmf642.JOURNALLED_SECONDS", 0.1)
    client.sink.repeat(many(alerts, 3), now_ns=NOW_NS)
    assert client.ask("PATCH", f"/alarm/{0:016x}", {"ackState": "acknowledged"})[0] == 503  # waits
    every = {"alarmPattern": [{"state": "raised"}, {"state": "updated"}]}
    assert client.ask("POST", "/ackAlarms", every)[0] == status
    assert [order.id for order in client.sink.hear(now_ns=NOW_NS)] == [f"{0:016x}"]


@pytest.mark.parametrize(("method", "path", "body", "status"), [
    ("POST", "/ackAlarms", {"ackUserId": "a"}, 400), ("POST", "/ackAlarms", {"alarmPattern": [{}]}, 400),
    ("POST", "/alarm", {"x": 1}, 405), ("DELETE", "/alarm/1", None, 405), ("GET", "/nothing", None, 404),
    ("PATCH", f"/alarm/{0:016x}", {"comment": 5}, 400),
    ("POST", "/hub", {"callback": "ftp://x"}, 400), ("DELETE", "/hub/1", None, 404),
    ("PATCH", "/alarm/1", {"ackState": "acknowledged"}, 404),
])  # fmt: skip
def test_what_cannot_be_done_is_said(
    client: Client, alerts: list[Alert], method: str, path: str, body: Any, status: int
) -> None:
    client.sink.repeat(many(alerts, 1), now_ns=NOW_NS)
    code, answer, _ = client.ask(method, path, body)
    assert code == status
    assert answer["reason"]


def test_what_nobody_foresaw_is_answered_and_logged(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def breaks(*_: Any) -> Any:
        raise KeyError("x")

    monkeypatch.setattr("alerting.sinks.tmf642.matches", breaks)
    client.sink.repeat([checks_sink.alerts()[0]], now_ns=NOW_NS)
    assert client.ask("GET", "/alarm")[0] == 500
    assert "request_failed" in caplog.text


def test_who_found_no_thread_takes_no_place_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alerting.sinks.tmf642_http.PEERS_MAX", 2)
    made = server(("127.0.0.1", 0), lambda *_: (200, {}, {}))

    def refuse(*_: Any) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        for _ in range(3):
            with socket.socket() as peer, pytest.raises(RuntimeError):
                made.process_request(peer, ("", 0))
    ends = socket.socketpair()
    with ends[1]:
        made.process_request(ends[0], ("", 0))
        ends[1].sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert ends[1].recv(100).startswith(b"HTTP/1.1 200")
    made.server_close()


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"\x00" * 90,
        b"\xff\xfe{",
        b"[" * 9_000,
        b"[]",
        b'{"1": 5}',
        b'{"1": {"callback": "x"}}',
    ],
)
def test_damaged_subscriptions_are_set_aside_and_named(
    client: Client, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: bytes
) -> None:
    client.sink.close()
    (tmp_path / "hubs.json").write_bytes(damage)
    client.sink = make_sink(client.settings)
    client.sink.repeat([], now_ns=NOW_NS)
    assert "hubs.json.damaged" in caplog.text
    assert (tmp_path / "hubs.json.damaged").read_bytes() == damage
    callback = {"callback": "http://127.0.0.1:9/", "query": ""}
    assert client.ask("POST", "/hub", callback)[0] == 201
    assert b"127.0.0.1:9" in (tmp_path / "hubs.json").read_bytes()


@pytest.mark.parametrize(
    ("length", "status"),
    [
        (b"-1", b"400"),
        (b"1e3", b"400"),
        (b"", b"200"),
        (b"9" * 5_000, b"413"),
        (b"2000000", b"413"),
    ],
)
def test_a_length_that_is_none_is_refused_before_anything_is_read(
    client: Client, length: bytes, status: bytes
) -> None:
    host, _, port = client.listen.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=5) as one:
        one.sendall(
            b"GET /tmf-api/alarm/v4/alarm HTTP/1.1\r\nConnection: close\r\n"
            b"Content-Length: " + length + b"\r\n\r\n"
        )
        answer = b"".join(iter(lambda: one.recv(65_536), b""))
    assert answer.split(b" ")[1] == status


def test_it_listens_on_addresses_of_version_6(tmp_path: Path) -> None:
    sink: Any = make_sink(SinkSettings(kind="tmf642", options={"listen": f"[::1]:{free_port()}"}))
    try:
        sink.repeat([], now_ns=NOW_NS)
        with urllib.request.urlopen(
            f"http://[::1]:{sink.port}/tmf-api/alarm/v4/alarm", timeout=5
        ) as answer:
            assert json.loads(answer.read()) == []
    finally:
        sink.close()


CHUNKS = (b'{"callback":', b'"http://127.0.0.1:9/"}')


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (
            b"".join(b"%x;a=b\r\n%s\r\n" % (len(c), c) for c in CHUNKS) + b"0\r\nA: b\r\n\r\n",
            b"201",
        ),
        (b"zz\r\n", b"400"),
        (b"-1\r\n", b"400"),
        (b"5\r\nabcdefgh\r\n0\r\n\r\n", b"400"),
        (b"ffffff\r\n", b"413"),
        (b"0\r\n" + b"A: b\r\n" * 200 + b"\r\n", b"400"),
        (b"", b"400"),
    ],
)
def test_a_body_may_come_in_chunks(client: Client, said: bytes, status: bytes) -> None:
    host, _, port = client.listen.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=5) as one:
        one.sendall(
            b"POST /tmf-api/alarm/v4/hub HTTP/1.1\r\nConnection: close\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n" + said
        )
        one.shutdown(socket.SHUT_WR)
        answer = one.recv(65_536)
    assert answer.split(b" ")[1] == status


def test_peers_that_hold_connections_keep_nobody_out_for_long(
    tmp_path: Path, alerts: list[Alert], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread and a file each, without bound: the other sinks of the gate were left without files."""
    monkeypatch.setattr("alerting.sinks.tmf642_http.PEERS_MAX", 4)
    monkeypatch.setattr("alerting.sinks.tmf642_http.REQUEST_SECONDS", 0.6)
    client = Client(tmp_path)
    client.sink.repeat(alerts[:1], now_ns=NOW_NS)
    host, _, port = client.listen.rpartition(":")
    before = threading.active_count()
    with contextlib.ExitStack() as held:
        peers = [
            held.enter_context(socket.create_connection((host, int(port)), timeout=5))
            for _ in range(30)
        ]

        def drip() -> None:  # each says a byte more often than one that is silent would be left
            for byte in b"GET /tmf-api/alarm/v4/alarm HTTP/1.1":
                CLOCK.sleep(0.1)
                for peer in peers:
                    with contextlib.suppress(OSError):
                        peer.sendall(bytes([byte]))

        dripping = threading.Thread(target=drip, daemon=True)
        dripping.start()
        CLOCK.sleep(0.3)
        assert threading.active_count() - before <= 4 + 1
        until_ns = CLOCK.monotonic_ns() + 20 * 10**9
        answered = False
        while not answered and CLOCK.monotonic_ns() < until_ns:
            with contextlib.suppress(OSError, http.client.HTTPException):
                answered = client.ask("GET", "/alarm")[0] == 200
        assert answered
        dripping.join(30)
    client.sink.close()


def test_a_body_that_does_not_come_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alerting.sinks.tmf642_http.REQUEST_SECONDS", 0.3)
    client = Client(tmp_path)
    host, _, port = client.listen.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=5) as one:
        one.sendall(b"POST /tmf-api/alarm/v4/hub HTTP/1.1\r\nContent-Length: 9\r\n\r\n{")
        answer = b"".join(iter(lambda: one.recv(65_536), b""))
    assert answer.split(b" ")[1] == b"408", answer
    client.sink.close()


def test_a_secret_or_a_disk_that_is_away_is_said(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret\n")
    made = Client(tmp_path, token_file=str(tmp_path / "token"))
    try:
        (tmp_path / "hubs.json.new").mkdir()
        made.token = "s3cret"
        status, answer, _ = made.ask("POST", "/hub", {"callback": "http://127.0.0.1:9/"})
        assert (status, "directory" in answer["reason"]) == (503, True)
        (tmp_path / "token").unlink()
        status, answer, _ = made.ask("GET", "/alarm")
        assert (status, "token_file" in answer["reason"]) == (503, True)
    finally:
        made.sink.close()


def test_open_to_others_it_needs_a_token(tmp_path: Path, alerts: list[Alert]) -> None:
    with pytest.raises(ConfigError, match="token_file"):
        make_sink(SinkSettings(kind="tmf642", options={"listen": "0.0.0.0:8642"}))
    (tmp_path / "token").write_text("s3cret\n")
    made = Client(tmp_path, token_file=str(tmp_path / "token"))
    try:
        assert made.ask("GET", "/alarm")[0] == 401
        made.token = "s3cret"
        assert made.ask("GET", "/alarm")[0] == 200
    finally:
        made.sink.close()
