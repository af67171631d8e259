"""Mail as real servers take it: slow to say yes, of several recipients not all, never under the wrong reason."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from aiosmtpd.controller import Controller

from alerting.config import SinkSettings
from alerting.sinks import RefusedError, make_sink
from alerting.sinks.mail import MailSink
from runtime.clock import SystemClock
from telemetry.errors import TransientError
from tests.support.bad_peers import answering, dripping, free_port
from tocsin.testing import checks_sink
from tocsin.testing.checks_sink import NOW_NS, parcel

ANN, BOB = "ann@example.net", "bob@example.net"


class MailServer:
    """Takes mails, but for the recipients in `refuses`, after `seconds`."""

    def __init__(self) -> None:
        self.refuses: dict[str, str] = {}
        self.mails: list[list[str]] = []
        self.seconds = 0.0
        self.data = "250 taken"
        self._control = Controller(self, hostname="127.0.0.1", port=free_port(), ready_timeout=10)
        self._control.start()
        self.url = f"smtp://127.0.0.1:{self._control.port}"

    async def handle_RCPT(  # noqa: N802
        self, server: Any, session: Any, envelope: Any, address: str, options: Any
    ) -> str:
        if address not in self.refuses:
            envelope.rcpt_tos.append(address)
        return self.refuses.get(address, "250 ok")

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        import asyncio

        await asyncio.sleep(self.seconds)
        if self.data.startswith("250"):
            self.mails.append(list(envelope.rcpt_tos))
        return self.data

    def stop(self) -> None:
        self._control.stop()


@pytest.fixture
def server() -> Iterator[MailServer]:
    made = MailServer()
    yield made
    made.stop()


@pytest.fixture
def sink(server: MailServer) -> Callable[..., MailSink]:
    def make(*to: str, seconds: float = 5.0, url: str = "") -> MailSink:
        options = {"sender": "tocsin@example.net", "to": to or (ANN, BOB)}
        settings = SinkSettings(
            kind="mail", url=url or server.url, timeout_seconds=seconds, options=options
        )
        made = make_sink(settings)
        assert isinstance(made, MailSink)
        return made

    return make


ALERTS = checks_sink.alerts()


def test_a_mail_that_a_server_looks_through_is_waited_for(
    server: MailServer, sink: Callable[..., MailSink]
) -> None:
    """Who gives up after the mail was handed over sends it again, at each attempt."""
    server.seconds = 1.0
    assert sink(seconds=0.3).send([parcel(ALERTS[0])], now_ns=NOW_NS) == "accepted"
    assert server.mails == [[ANN, BOB]]


def test_who_is_greylisted_gets_it_later_and_the_others_no_second(
    server: MailServer, sink: Callable[..., MailSink]
) -> None:
    made = sink()
    server.refuses = {BOB: "450 4.2.0 greylisted"}
    with pytest.raises(TransientError, match=f"450 of {BOB}: 4.2.0 greylisted") as error:
        made.send([parcel(ALERTS[0]), parcel(ALERTS[1])], now_ns=NOW_NS)
    assert not isinstance(error.value, RefusedError)
    server.refuses = {}
    assert made.send([parcel(ALERTS[0], 2), parcel(ALERTS[1], 2)], now_ns=NOW_NS) == "accepted"
    assert server.mails == [[ANN], [ANN], [BOB], [BOB]]


def test_who_is_unknown_there_is_named_and_the_others_get_it(
    server: MailServer, sink: Callable[..., MailSink]
) -> None:
    server.refuses = {BOB: "550 5.1.1 no such user"}
    said = sink().send([parcel(ALERTS[0])], now_ns=NOW_NS)
    assert said == f"accepted, but the mail server answered 550 of {BOB}: 5.1.1 no such user"
    with pytest.raises(RefusedError, match="550"):
        sink(BOB).send([parcel(ALERTS[0])], now_ns=NOW_NS)
    assert server.mails == [[ANN]]


def test_what_was_sent_before_another_mail_was_refused_is_not_sent_again(
    server: MailServer, sink: Callable[..., MailSink]
) -> None:
    made = sink(ANN)
    assert made.send([parcel(ALERTS[0])], now_ns=NOW_NS) == "accepted"
    server.data = "554 5.7.1 spam"
    with pytest.raises(RefusedError, match="spam"):
        made.send([parcel(ALERTS[0], 2), parcel(ALERTS[1])], now_ns=NOW_NS)
    assert made.send([parcel(ALERTS[0], 2)], now_ns=NOW_NS) == "accepted"
    assert server.mails == [[ANN]]


def test_a_server_that_will_not_talk_to_us_is_tried_again(sink: Callable[..., MailSink]) -> None:
    no = b"554 5.3.2 no service for now\r\n"
    with answering(no) as port, pytest.raises(TransientError, match="554") as error:
        sink(url=f"smtp://127.0.0.1:{port}").send([parcel(ALERTS[0])], now_ns=NOW_NS)
    assert not isinstance(error.value, RefusedError)


def test_an_answer_without_end_is_left_after_the_timeout(sink: Callable[..., MailSink]) -> None:
    clock = SystemClock()
    began_ns = clock.monotonic_ns()
    with dripping(b"220-", b"welcome\r\n220-") as port, pytest.raises(TransientError):
        sink(url=f"smtp://127.0.0.1:{port}", seconds=0.4).send([parcel(ALERTS[0])], now_ns=NOW_NS)
    assert clock.monotonic_ns() - began_ns < 10 * 10**9  # a bound, not a measurement
