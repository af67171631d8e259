"""What `tocsin doctor` finds, and that each finding says what to do."""

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from collectors.listen.udp import pid_at
from runtime import kernel_library
from runtime.bus import RequestServer
from telemetry.batch import Batch, batch_from_rows
from telemetry.identity import address_pair
from telemetry.schemas import LEDGER, OPTION
from tests.support.live_node import CLOCK
from tocsin import verbs
from tocsin.cli.doctor import CLOCK_UNSYNCHRONISED, clock, doctor, receive_buffers
from tocsin.cli.doctor_ports import _command
from tocsin.cli.doctor_senders import full_tables
from tocsin.demo.settings import free_port
from tocsin.node.senders import SENDERS_MAX, SenderBook

CONFIG = """
[node]
profile = "{profile}"
[collectors.flow]
kind = "flow"
listen = "udp://127.0.0.1:{port}"
receive_buffer_bytes = 65536
[api]
listen = "127.0.0.1:0"
sql_listen = "127.0.0.1:0"
metrics_listen = "127.0.0.1:{page}"
"""


class Asked:
    """A state folder and a configuration, and the doctor's answer about them."""

    def __init__(self, folder: Path) -> None:
        self.state = folder / "state"
        self.state.mkdir()
        self.config = folder / "tocsin.toml"
        self.write()

    def write(self, *, port: int = 0, profile: str = "sensor", page: int = 0) -> None:
        self.config.write_text(CONFIG.format(port=port, profile=profile, page=page), "utf-8")

    def doctor(self, *what: str) -> Result:
        options = ["-c", str(self.config), "--state", str(self.state)]
        return CliRunner().invoke(doctor, [*what, *options])

    def finds(self, *words: str) -> None:
        """The doctor has something to mend, with all these words in one line."""
        answer = self.doctor()
        assert answer.exit_code == 3, answer.output
        lines = [line for line in answer.output.splitlines() if line.startswith("FIX ")]
        assert any(all(word in line for word in words) for line in lines), answer.output


@pytest.fixture
def asked(tmp_path_factory: pytest.TempPathFactory) -> Asked:
    return Asked(tmp_path_factory.mktemp("d"))  # short: a unix socket's path has 108 bytes


def test_nothing_to_mend_is_exit_code_0(asked: Asked) -> None:
    clean = asked.doctor()
    assert clean.exit_code == 0, clean.output
    for words in (
        "all packages come from one folder",
        "kernels: ",
        "receive buffers of 65536 bytes are granted",
        "is free",
        "no node runs on this state folder",
        "GB free",
    ):
        assert words in clean.output


def test_a_buffer_that_is_not_granted_names_the_sysctl() -> None:
    good, text = receive_buffers(33_554_432, 4_194_304)
    assert not good
    assert "4194304 bytes are granted, 33554432 asked for" in text
    assert "sysctl -w net.core.rmem_max=33554432" in text
    assert receive_buffers(33_554_432, 33_554_432)[0]


def test_a_clock_that_nobody_keeps_is_told() -> None:
    assert "install chrony" in clock(CLOCK_UNSYNCHRONISED)[1]
    assert clock(0)[1] == "the clock is synchronised"
    assert "clock" in clock()[1]


def missing(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Let these packages not be there."""
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *more: None if name in names else real(name, *more),
    )


def test_a_missing_package_of_ours(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    missing(monkeypatch, "correlator")
    asked.finds("package correlator is missing", "install Tocsin again")


def test_packages_of_two_folders(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec

    def other(name: str, *more: Any) -> Any:
        if name == "history":
            return SimpleNamespace(origin="/elsewhere/history/__init__.py")
        return real(name, *more)

    monkeypatch.setattr(importlib.util, "find_spec", other)
    asked.finds("from several folders", "/elsewhere", "another package shadows one")


def test_neither_numba_nor_a_library(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    missing(monkeypatch, "numba")
    monkeypatch.setattr(kernel_library, "find_library", lambda *_: (None, "there is no library"))
    asked.finds("numba is missing and there is no library", "pip install 'tocsin[jit]'")


def test_a_refused_library_is_named_where_numba_takes_over(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel_library, "find_library", lambda *_: (None, "x.so: damaged"))
    monkeypatch.setattr(kernel_library, "present", lambda *_: [])
    assert "refused" not in asked.doctor().output
    monkeypatch.setattr(kernel_library, "present", lambda *_: ["x.so"])
    assert "kernels: numba; a library is refused: x.so: damaged" in asked.doctor().output


def test_a_library_is_enough(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    missing(monkeypatch, "numba")
    monkeypatch.setattr(kernel_library, "find_library", lambda *_: (object(), ""))
    assert asked.doctor().exit_code == 0


def test_a_site_without_its_store_and_a_sensor_without(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing(monkeypatch, "chdb")
    assert asked.doctor().exit_code == 0, "a sensor keeps no history"
    asked.write(profile="site")
    asked.finds("chdb", "pip install 'tocsin[site]'")


def test_an_old_python(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 10, 0))
    asked.finds("3.11 or newer is needed")


def test_a_disk_that_is_nearly_full(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(asked.state)._replace(free=10**8)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    asked.finds("0.1 GB free", "the journal needs room")


def test_what_was_set_aside(asked: Asked) -> None:
    (asked.state / "node.sqlite.damaged-1").touch()
    asked.finds("was set aside as damaged", "send it with a bug report")


def test_a_port_that_somebody_has(asked: Asked) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        asked.write(port=taken.getsockname()[1])
        asked.finds("collectors.flow", "has this port", "stop it or listen on another")
    with socket.create_server(("127.0.0.1", 0)) as page:
        asked.write(page=page.getsockname()[1])
        asked.finds("api.metrics_listen", "has this port", "stop it or listen on another")


SERVED = """
[sources.pushed]
kind = "mapped"
[sources.pushed.options]
mapping = "unread.toml"
push = {{ listen = "http://127.0.0.1:{source}" }}
[sources.rules]
kind = "alertmanager"
options = {{ listen = "http://127.0.0.1:{rules}" }}
[alerting.sinks.tickets]
kind = "tmf642"
options = {{ listen = "127.0.0.1:{sink}" }}
"""


def test_ports_of_sources_and_of_a_sink_that_listens(asked: Asked) -> None:
    plain = asked.config.read_text("utf-8")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for name, source, sink in (
            ("sources.pushed", port, 0),
            ("alerting.sinks.tickets", 0, port),
        ):
            asked.config.write_text(
                plain + SERVED.format(source=source, rules=0, sink=sink), "utf-8"
            )
            asked.finds(name, "has this port", "stop it or listen on another")
            assert "sources.rules: tcp://127.0.0.1:0 is free" in asked.doctor().output


def test_ports_of_the_gate_while_the_node_runs(
    asked: Asked, node: Callable[[verbs.Status], None]
) -> None:
    node(STATUS)
    rules = free_port(38_600, socket.SOCK_STREAM)
    plain = asked.config.read_text("utf-8")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        asked.config.write_text(plain + SERVED.format(source=port, rules=rules, sink=0), "utf-8")
        asked.finds("sources.pushed", "has this port", "Nobody reaches us there meanwhile")
    asked.finds("sources.rules", f":{rules} is free although the node runs", "the log of the gate")
    gate = subprocess.Popen(
        [sys.executable, "-m", "tocsin.gate", str(asked.config), str(asked.state)],
        stderr=subprocess.DEVNULL,
    )
    try:
        until_ns = CLOCK.monotonic_ns() + 20 * 10**9
        while not pid_at(rules, "tcp") and CLOCK.monotonic_ns() < until_ns:
            CLOCK.sleep(0.05)
        answer = asked.doctor().output
        assert f"ok   sources.rules: tcp://127.0.0.1:{rules} is ours" in answer
        assert "ok   alerting.sinks.tickets: tcp://127.0.0.1:0: any port, the log says" in answer
    finally:
        gate.terminate()
        gate.wait(20)


def test_a_process_that_ended_while_the_doctor_looked_has_no_command() -> None:
    with subprocess.Popen(["true"]) as ended:
        pass
    assert _command(ended.pid) == b""
    assert b"python" in _command(os.getpid())


def test_a_node_that_does_not_answer(asked: Asked) -> None:
    (asked.state / "node.sock").touch()
    asked.finds("no node answers: start it with `tocsin run`")


STATUS = verbs.Status(
    version="0.1.0", profile="sensor", ready=True, now_ns=1, started_ns=1, frontier_ns=1,
    last_tick_end_ns=1, ticks=1, records=1, datagrams=1, series=12, exporters=3, alarms_raised=0,
    budget_used=0.0, budget_per_day=10.0, journal_next_sequence=1, rss_bytes=1, health=[],
    listeners=[
        verbs.ListenerStatus(name="flow", address="udp://127.0.0.1:2055", datagrams=5,
                             receive_buffer_bytes=65536, kernel_drops=0, queue_blocks=0)
    ],
)  # fmt: skip


METRICS = """
tocsin_collector_syslog_unparsed_total{component="c",sender="192.0.2.8"} 40.0
tocsin_collector_snmp_messages_total{component="t",verdict="ok"} 90.0
tocsin_collector_snmp_messages_total{component="t",verdict="wrong_digest"} 7.0
tocsin_collector_snmp_messages_total{component="t",verdict="unknown_user"} 0.0
tocsin_collector_snmp_notifications_total{component="t",result="log"} 12.0
"""
MINUTE = 60_000_000_000


@pytest.fixture
def book() -> SenderBook:
    return SenderBook()


def ledger(address: str, protocol: str = "syslog", **columns: int) -> Batch:
    high, low = address_pair(address)
    row = {"exporter_address_high": high, "exporter_address_low": low, "protocol": protocol}
    return batch_from_rows(LEDGER, [{**row, **columns}])


@pytest.fixture
def node(asked: Asked, book: SenderBook) -> Iterator[Callable[[verbs.Status], None]]:
    """Return a function that sets what a node on the state folder answers."""
    said = [STATUS]
    ended, ready = threading.Event(), threading.Event()

    def answer() -> None:
        server = RequestServer(f"ipc://{asked.state}/node.sock")
        server.start()
        server.handle("status", verbs.Nothing, lambda _: said[0])
        server.handle("senders", str, book.statuses)
        server.handle("metrics", verbs.Nothing, lambda _: verbs.MetricsText(METRICS))
        ready.set()
        while not ended.wait(0.005):
            server.serve()
        server.stop()

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    ready.wait(10)
    yield lambda status: said.__setitem__(0, status)
    ended.set()
    thread.join(30)


def test_a_table_that_is_full_is_found_with_what_is_missing_for_it() -> None:
    page = """
tocsin_network_map_refused_total{component="correlator",table="lldp_ports"} 0.0
tocsin_network_map_refused_total{component="correlator",table="link_state"} 12.0
tocsin_collector_bmp_refused_total{component="collectors.bmp",what="peer_messages"} 3.0
tocsin_network_map_refused_total{component="correlator",table="of_a_newer_node"} 4.0
"""
    (well, links), (_, peers), (_, newer) = full_tables(page)
    assert not well
    assert "BGP-LS: 12 times" in links
    assert "missing in the graph" in links
    assert "raise peers_max" in peers
    assert newer.startswith("of_a_newer_node: 4 times")


def test_a_node_that_is_well(asked: Asked, node: Callable[[verbs.Status], None]) -> None:
    answer = asked.doctor()
    assert answer.exit_code == 0, answer.output
    assert "node 0.1.0: 12 series, 3 exporters" in answer.output
    assert "flow on udp://127.0.0.1:2055: 5 datagrams" in answer.output


def changed(**fields: Any) -> verbs.Status:
    return msgspec.structs.replace(STATUS, **fields)


def listener(**fields: Any) -> verbs.Status:
    return changed(listeners=[msgspec.structs.replace(STATUS.listeners[0], **fields)])


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (changed(health=["the outbox was damaged"]), ("the outbox was damaged",)),
        (changed(health=["sink a fails: 400 \x1b]0;pwn\x07"]), (r"400 \x1b]0;pwn\x07",)),
        (listener(kernel_drops=7), ("7 lost in the kernel's buffer", "net.core.rmem_max")),
        (
            changed(workers=[verbs.WorkerStatus(shard=1, pid=0, counts=False, restarts=4,
                                                frontier_ns=1, waiting=0)]),
            ("shard 1", "4 restarts", "it is down"),
        ),
    ],
    ids=["health", "escapes", "kernel-drops", "shard"],
)  # fmt: skip
def test_what_a_node_says_of_itself(
    asked: Asked, node: Callable[[verbs.Status], None], status: verbs.Status, words: tuple[str, ...]
) -> None:
    node(status)
    asked.finds(*words)


def test_an_input_that_nobody_sends_to_is_told(
    asked: Asked, node: Callable[[verbs.Status], None]
) -> None:
    node(listener(datagrams=0))
    assert "nothing received; point exporters here" in asked.doctor().output


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (ledger("192.0.2.7", sent=100, decoded=100, records=100, clock_offset_ns=7200 * 10**9),
         ("192.0.2.7 syslog", "clock +7200.0 s", "+2.0 h: a time zone that it does not state")),
        (ledger("192.0.2.8", sent=100, decoded=100, records=100),
         ("40 lines are plain text (40%)", "RFC 5424")),
        (ledger("192.0.2.7", sent=100, decoded=60, records=60, shed=40),
         ("40 shed by policy (40.0%)", "lines_per_second_max", "debug is shed first")),
        (ledger("192.0.2.7", "netflow9", sent=100, decoded=90, records=90, lost_wire=10),
         ("10 lost on the way (10.0%)", "export rate limit")),
        (ledger("192.0.2.7", "ipfix", sent=100, decoded=50, no_template=50, undecodable=50),
         ("50 wait for a template", "templates each minute")),
        (ledger("192.0.2.7", "snmp-trap", sent=100, decoded=90, records=90, undecodable=10),
         ("90 traps", "10 refused (10.0%)", "authentication differs", "(7)", "12 traps of all senders")),
        (ledger("192.0.2.7", "snmp-poll", sent=100, decoded=70, records=70, lost_wire=30, restarts=2),
         ("70 answers", "2 restarts", "30 requests timed out (30.0%)", "access list")),
        (ledger("192.0.2.7", "netflow9", sent=9, decoded=6, records=6, malformed=3, undecodable=3),
         ("3 malformed (33.3%)", "tocsin decode --explain")),
        (ledger("192.0.2.7", "ves", sent=9, decoded=6, records=6, malformed=3, undecodable=3),
         ("3 malformed (33.3%)", "the answer to each event says what is wrong")),
    ],
    ids=["zone", "plain-text", "shed", "lost", "templates", "trap-refused", "poll-timeouts",
         "malformed-flows", "malformed-events"],
)  # fmt: skip
def test_a_sender_that_needs_mending(
    asked: Asked,
    node: Callable[[verbs.Status], None],
    book: SenderBook,
    row: Batch,
    words: tuple[str, ...],
) -> None:
    book.take([row])
    asked.finds(*words)


def test_one_sender_with_lines_for_its_configuration(
    asked: Asked, node: Callable[[verbs.Status], None], book: SenderBook
) -> None:
    book.take([ledger("192.0.2.7", sent=9, decoded=9, records=9, clock_offset_ns=10**11)])
    answer = asked.doctor("exporter", "192.0.2.7")
    assert answer.exit_code == 3
    for system in ("IOS-XR", "Junos", "SR OS", "VRP", "EOS"):
        assert f"    {system}: " in answer.output
    assert "ntp server" in answer.output
    assert "all packages" not in answer.output


@pytest.mark.parametrize(
    ("row", "line"),
    [
        (
            ledger("192.0.2.7", "snmp-trap", sent=9, decoded=6, records=6, undecodable=3),
            "udp-port 5162",
        ),
        (
            ledger("192.0.2.7", "snmp-poll", sent=9, decoded=6, records=6, lost_wire=3),
            "community C",
        ),
        (ledger("192.0.2.7", "netflow9", sent=9, decoded=9, records=9), "options interface-table"),
    ],
    ids=["traps", "polled", "names"],
)
def test_lines_fit_what_is_to_mend(
    asked: Asked, node: Callable[[verbs.Status], None], book: SenderBook, row: Batch, line: str
) -> None:
    book.take([row])
    assert line in asked.doctor("exporter", "192.0.2.7").output


def test_templates_sampling_and_elements_without_a_column(
    asked: Asked, node: Callable[[verbs.Status], None], book: SenderBook
) -> None:
    high, low = address_pair("192.0.2.7")
    own = {"exporter_address_high": high, "exporter_address_low": low, "table": "exporter"}
    text = (
        '{"templates": 4, "unread": 9, "unread_first": ["0:455", "9:12235"], "rates": [1000],'
        ' "rate_in_records": false}'
    )
    book.take([batch_from_rows(OPTION, [{**own, "name": one} for one in (text, "[]", "no JSON")])])
    for protocol in ("ipfix", "netflow5"):
        book.take([ledger("192.0.2.7", protocol, sent=9, decoded=9, records=9)])
    told = asked.doctor("exporter", "192.0.2.7").output
    assert "4 templates, sampled 1 in 1000 by its options data, 9 elements have no column" in told
    assert "(enterprise:element 0:455, 9:12235, ...; decode shows them)" in told
    assert told.count("4 templates") == 1, "v5 has none"


def test_where_nothing_is_to_mend_no_lines_are_shown(
    asked: Asked, node: Callable[[verbs.Status], None], book: SenderBook
) -> None:
    high, low = address_pair("192.0.2.7")
    named = {"exporter_address_high": high, "exporter_address_low": low, "table": "interface"}
    book.take([batch_from_rows(OPTION, [{**named, "key": 5, "name": "et-0/0/5"}])])
    for protocol in ("syslog", "snmp-trap", "snmp-poll", "netflow9", "bmp"):
        book.take([ledger("192.0.2.7", protocol, sent=9, decoded=9, records=9)])
    answer = asked.doctor("exporter", "192.0.2.7")
    assert answer.exit_code == 0, answer.output
    assert "IOS-XR" not in answer.output
    assert "a second" not in answer.output, "one report says nothing of the rate yet"
    for second in (10, 20):
        row = ledger("192.0.2.7", sent=50, decoded=50, records=50, arrival_ns=second * 10**9)
        book.take([row])
    assert "5.0 a second" in asked.doctor("exporter", "192.0.2.7").output


def test_a_sender_that_nobody_heard_of_and_one_that_is_none(
    asked: Asked, node: Callable[[verbs.Status], None]
) -> None:
    assert "nothing was heard of it" in asked.doctor("exporter", "192.0.2.99").output
    assert "is no address" in asked.doctor("exporter", "router-7").output
    assert asked.doctor("router").exit_code == 2


def test_without_a_node_it_says_so(asked: Asked) -> None:
    assert "no node runs" in asked.doctor("exporter", "192.0.2.7").output


def test_senders_are_added_up_and_bounded(book: SenderBook) -> None:
    for minute in range(3):
        row = ledger("192.0.2.7", sent=120, decoded=120, records=120, arrival_ns=minute * MINUTE)
        book.take([row, batch_from_rows(LEDGER, [])])
    (one,) = book.statuses("192.0.2.7")
    assert (one.sent, one.records, one.rate, one.last_ns) == (360, 360, 2.0, 2 * MINUTE)
    for n in range(SENDERS_MAX):
        book.take([ledger(f"10.0.{n >> 8}.{n & 255}")])
    assert len(book.statuses()) == SENDERS_MAX
    assert book.statuses("192.0.2.7") == []
    assert book.statuses()[0].address == f"10.0.{SENDERS_MAX - 1 >> 8}.255"


def test_what_is_missing_is_counted_once_by_whatever_reason(book: SenderBook) -> None:
    book.take([
        ledger("192.0.2.7", "ipfix", sent=100, decoded=50, lost_wire=5, undecodable=40, no_template=30,
               malformed=10, shed=5),
    ])  # fmt: skip
    assert book.totals == {"ipfix": {"sent": 100, "missing": 50}}
