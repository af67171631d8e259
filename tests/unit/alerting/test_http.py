"""HTTP of the sinks: proxies that the environment names, addresses that are none, peers that take their time."""

from collections.abc import Iterator

import pytest

from alerting.config import SinkSettings
from alerting.sinks.http import Answer, accepted, request
from alerting.sinks.parcel import LaterError, NotSentError, RefusedError
from runtime.clock import SystemClock
from telemetry.errors import TransientError
from tests.support.bad_peers import absent, dripping
from tests.support.http_emulator import Emulator, Reply

SETTINGS = SinkSettings(kind="webhook", timeout_seconds=2.0)
CLOCK = SystemClock()


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    made = Emulator(lambda asked: Reply(202, asked.body))
    yield made
    made.close()


def test_a_request_goes_to_its_host(peer: Emulator) -> None:
    answer = request(SETTINGS, "POST", f"{peer.url}/a?b=c#d", b"body", {"X-One": "1"})
    assert (answer.status, answer.body) == (202, b"body")
    (asked,) = peer.asked
    assert (asked.method, asked.target) == ("POST", "/a?b=c")
    assert asked.headers["x-one"] == "1"
    assert asked.headers["host"] == peer.url.removeprefix("http://")
    assert "proxy-authorization" not in asked.headers


def test_a_proxy_of_the_environment_is_asked(
    peer: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", peer.url.replace("://", "://noc:pass%20word@"))
    assert request(SETTINGS, "GET", "http://tickets.test:81/a?b", None, {}).status == 202
    (asked,) = peer.asked
    assert asked.target == "http://tickets.test:81/a?b"
    assert asked.headers["host"] == "tickets.test:81"
    assert asked.headers["proxy-authorization"] == "Basic bm9jOnBhc3Mgd29yZA=="
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert request(SETTINGS, "GET", f"{peer.url}/direct", None, {}).status == 202
    assert peer.asked[-1].target == "/direct"


def test_over_tls_a_proxy_is_asked_for_a_tunnel(
    peer: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", peer.url)
    with pytest.raises(TransientError, match="Tunnel connection failed: 501"):
        request(SETTINGS, "GET", "https://tickets.test/", None, {})


@pytest.mark.parametrize(
    "url", ["ftp://x/", "http:///path", "http://x:port/", "http://x:99999/", "https://[::1/"]
)
def test_an_address_that_is_none_is_said(peer: Emulator, url: str) -> None:
    with pytest.raises(TransientError, match=r"ftp|http"):
        request(SETTINGS, "GET", url, None, {})
    assert not peer.asked


@pytest.mark.usefixtures("peer")
def test_what_was_never_sent_is_told_from_what_may_have_been() -> None:
    with absent() as port, pytest.raises(NotSentError, match="Connection refused"):
        request(SETTINGS, "POST", f"http://127.0.0.1:{port}/", b"", {})


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff", b"[" * 90_000])
def test_an_answer_that_is_no_json_may_come_to_sense(body: bytes) -> None:
    with pytest.raises(TransientError, match="the answer is no JSON: 200"):
        Answer(200, body).json()


@pytest.mark.usefixtures("peer")
@pytest.mark.parametrize(
    "said", [b"a", b"HTTP/1.1 200 OK\r\nA: 1\r\n\r\n"], ids=["no end of a line", "no end"]
)
def test_a_peer_that_drips_is_left_after_the_timeout(said: bytes) -> None:
    settings = SinkSettings(kind="webhook", timeout_seconds=0.3)
    began_ns = CLOCK.monotonic_ns()
    with dripping(b"", said) as port, pytest.raises(TransientError, match="timed out"):
        request(settings, "POST", f"http://127.0.0.1:{port}/", b"", {})
    assert CLOCK.monotonic_ns() - began_ns < 10 * 10**9  # a bound, not a measurement


@pytest.mark.usefixtures("peer")
@pytest.mark.parametrize(
    ("status", "headers", "seconds"),
    [
        (429, {"Retry-After": "120"}, 120.0),
        (503, {"Retry-After": "7"}, 7.0),
        (
            429,
            {
                "Retry-After": "Sun, 06 Nov 1994 08:50:37 GMT",
                "Date": "Sun, 06 Nov 1994 08:49:37 GMT",
            },
            60.0,
        ),
    ],
)
def test_who_says_when_to_come_back_is_heard(
    status: int, headers: dict[str, str], seconds: float
) -> None:
    busy = Emulator(lambda _: Reply(status, b"busy", headers))
    try:
        with pytest.raises(LaterError, match=f"answered {status}: busy") as error:
            accepted(busy.url, request(SETTINGS, "GET", busy.url, None, {}))
    finally:
        busy.close()
    assert error.value.seconds == seconds


@pytest.mark.parametrize("said", ["", "soon", "-5", "Sun, 06 Nov 1994 08:49:37 GMT", "\u00b2"])
def test_who_says_nothing_of_use_about_it_is_tried_as_any_other(said: str) -> None:
    with pytest.raises(TransientError) as error:
        accepted("http://x/", Answer(429, b"", {"retry-after": said}))
    assert not isinstance(error.value, LaterError)


@pytest.mark.parametrize(("status", "sent"), [(401, False), (404, False), (408, True), (500, True)])
def test_an_answer_that_it_was_not_taken_is_told_from_one_that_leaves_it_open(
    status: int, sent: bool
) -> None:
    with pytest.raises(TransientError) as error:
        accepted("http://x/", Answer(status, b""))
    assert isinstance(error.value, NotSentError) != sent


def test_what_follows_the_host_is_told_to_nobody(peer: Emulator) -> None:
    url = f"{peer.url.replace('://', '://ann:s3cret@')}/services/s3cret?sig=s3cret"
    with pytest.raises(RefusedError) as refused:
        accepted(url, Answer(400, b"invalid_blocks"))
    with absent() as port, pytest.raises(TransientError) as away:
        request(SETTINGS, "POST", f"http://127.0.0.1:{port}/services/s3cret", b"", {})
    assert str(refused.value) == f"{peer.url} answered 400: invalid_blocks"
    assert "s3cret" not in str(away.value)
