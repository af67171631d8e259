"""HTTP of the sinks: proxies that the environment names, and addresses that are none."""

from collections.abc import Iterator

import pytest

from alerting.config import SinkSettings
from alerting.sinks.http import Answer, request
from alerting.sinks.parcel import NotSentError
from telemetry.errors import TransientError
from tests.support.bad_peers import absent
from tests.support.http_emulator import Emulator, Reply

SETTINGS = SinkSettings(kind="webhook", timeout_seconds=2.0)


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
