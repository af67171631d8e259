"""A start that takes long says so to systemd, and one that fails leaves nothing open."""

import contextlib
import errno
import gc
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from runtime.journal import Block, BlockKind, write_segment
from telemetry.batch import batch_from_rows
from telemetry.errors import TransientError
from telemetry.foreign_alarm import alarm_row
from telemetry.schemas import ALARM
from tests.support.fed_node import SECOND, START_NS, Machine
from tocsin.chain.back import Back
from tocsin.chain.ticks import Outcome, Tick
from tocsin.node.heartbeat import COMING_UP_USEC

TICKS = 7


class Systemd:
    """Where systemd listens."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)

    def heard(self) -> list[str]:
        """All that was said so far."""
        said = []
        with contextlib.suppress(BlockingIOError):
            while True:
                said.append(self._socket.recv(4096).decode())
        return said

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Systemd]:
    made = Systemd(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    yield made
    made.close()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A node that a power cut ended: its journal has an alarm in each tick, and no results."""
    made = Machine(tmp_path, monkeypatch)
    made.node.stop()
    shutil.rmtree(made.state)
    blocks = []
    for n in range(1, TICKS + 1):
        row = alarm_row(
            source="s", kind="k", entity=f"e{n}", severity="major", changed_ns=START_NS, title="t"
        )
        at_ns = START_NS + (n - 60) * SECOND
        blocks.append(Block(n, BlockKind.TICK, at_ns, (batch_from_rows(ALARM, [row]),)))
    write_segment(made.state / "journal", blocks)
    return made


def taking_back(monkeypatch: pytest.MonkeyPatch, does: Callable[[], None]) -> None:
    """Have something done before each tick that is taken back."""
    absorb = Back.absorb

    def absorbed(back: Back, tick: Tick) -> Outcome:
        does()
        return absorb(back, tick)

    monkeypatch.setattr(Back, "absorb", absorbed)


def refusing(monkeypatch: pytest.MonkeyPatch, does: Callable[[], bool]) -> None:
    """Have a full disk refuse what comes of ticks that are taken back, as long as `does` says so."""
    monkeypatch.setattr("runtime.journal_writer.WAITING_BYTES_MAX", 1)
    write = os.pwrite

    def written(fd: int, data: bytes, at: int) -> int:
        if Path(f"/proc/self/fd/{fd}").readlink().suffix == ".arrows" and does():
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(fd, data, at)

    taking_back(monkeypatch, lambda: monkeypatch.setattr(os, "pwrite", written))


def test_a_start_behind_a_long_journal_asks_for_time_now_and_then(
    machine: Machine, systemd: Systemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow() -> None:
        machine.true_ns += 2 * SECOND

    taking_back(monkeypatch, slow)
    machine.start().stop()
    assert systemd.heard() == [
        *(
            f"EXTEND_TIMEOUT_USEC={COMING_UP_USEC}\nSTATUS=Starting: {what}"
            for what in (
                "opens its journal",
                "reads its checkpoint",
                *(f"takes back tick {n} of the journal" for n in range(4, TICKS + 1, 3)),
            )
        ),
        "READY=1",
        "STATUS=",
    ]


@pytest.mark.parametrize("slow", range(1, TICKS + 1))
def test_one_tick_that_takes_minutes_does_not_end_a_start(
    machine: Machine, systemd: Systemd, monkeypatch: pytest.MonkeyPatch, slow: int
) -> None:
    """TimeoutStartSec has passed: only what was asked for counts. Every tick takes a while, one of them minutes."""
    ticks = iter(range(1, TICKS + 1))
    ends_ns = 0
    left_ns = []

    def taken() -> None:
        nonlocal ends_ns
        for said in systemd.heard():
            asked_us = int(said.partition("\n")[0].removeprefix("EXTEND_TIMEOUT_USEC="))
            ends_ns = machine.true_ns + asked_us * 1_000
        machine.true_ns += 9 * 60 * SECOND if next(ticks) == slow else 4 * SECOND
        left_ns.append(ends_ns - machine.true_ns)

    taking_back(monkeypatch, taken)
    machine.start().stop()
    assert len(left_ns) == TICKS
    assert min(left_ns) > 0
    assert systemd.heard()[-2:] == ["READY=1", "STATUS="]


@pytest.mark.parametrize("slow_seconds", [50, 9 * 60])
def test_a_node_that_is_started_again_is_let_alone_by_the_watchdog_while_it_goes_on(
    machine: Machine, systemd: Systemd, monkeypatch: pytest.MonkeyPatch, slow_seconds: int
) -> None:
    """READY=1 was said by the node before it: WatchdogSec counts, and what it takes back lasts minutes."""
    monkeypatch.setenv("WATCHDOG_USEC", "60000000")
    limit_ns, heard_ns = 60 * SECOND, machine.true_ns
    left_ns = []

    def hear() -> None:
        nonlocal limit_ns, heard_ns
        for said in systemd.heard():
            told = dict(line.split("=", 1) for line in said.splitlines())
            limit_ns = int(told.get("WATCHDOG_USEC", limit_ns // 1_000)) * 1_000
            if told.get("WATCHDOG") == "1":
                heard_ns = machine.true_ns

    def taken() -> None:
        hear()
        machine.true_ns += slow_seconds * SECOND
        left_ns.append(heard_ns + limit_ns - machine.true_ns)

    taking_back(monkeypatch, taken)
    machine.start()
    hear()
    assert (len(left_ns), limit_ns) == (TICKS, 60 * SECOND), "and then it counts as before"
    assert min(left_ns) > 0
    assert heard_ns == machine.true_ns
    machine.node.stop()


def test_a_start_without_a_watchdog_asks_for_none(machine: Machine, systemd: Systemd) -> None:
    machine.start().stop()
    assert not any("WATCHDOG_USEC" in said for said in systemd.heard())


def test_a_start_that_waits_for_a_disk_asks_for_time_and_goes_on(
    machine: Machine, systemd: Systemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals = iter(range(3))
    heard: list[str] = []

    def until_mended() -> bool:
        heard.extend(systemd.heard())  # it takes ten at a time
        machine.true_ns += 6 * SECOND
        return next(refusals, None) is not None

    refusing(monkeypatch, until_mended)
    machine.start().stop()
    heard += systemd.heard()
    waited = [one for one in heard if "STATUS=Starting: waits for a disk: the journal" in one]
    assert waited
    assert all(one.startswith(f"EXTEND_TIMEOUT_USEC={COMING_UP_USEC}\n") for one in waited)
    assert heard[-2:] == ["READY=1", "STATUS="]


def open_in(folder: Path) -> list[str]:
    """The files of a folder that this process has open."""
    found = []
    for fd in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(str(fd.readlink()))
    return [path for path in found if path.startswith(str(folder))]


def open_contexts() -> "list[zmq.Context[zmq.Socket[bytes]]]":
    return [one for one in gc.get_objects() if type(one) is zmq.Context and not one.closed]


def test_a_start_that_ends_before_it_is_ready_leaves_nothing_open(
    machine: Machine, systemd: Systemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = open_contexts()

    fits = iter([True])  # the head of a segment, which is open from then on

    def told_to_stop() -> bool:
        machine.node.ask_to_stop()
        return not next(fits, False)

    with monkeypatch.context() as full:
        refusing(full, told_to_stop)
        with pytest.raises(TransientError, match="ended before it was ready"):
            machine.start()
        assert open_in(machine.state)
        machine.node.stop(orderly=False)
    left = [one for one in open_contexts() if one not in before]
    for context in left:
        context.destroy(linger=0)  # it would hang when it is collected
    assert left == []
    assert open_in(machine.state) == []
    assert "READY=1" not in systemd.heard()
    machine.start().stop()
