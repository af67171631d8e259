"""Records a second on one core, and CPU seconds a million, of each stream that is not flows, beside the
peer that a user would pick. One function a stream; `python perf/collectors.py [STREAM ...]`.

Ours are timed in this process (CPU seconds, best of five); peers that are programs receive over loopback
and their CPU time (user + system) is divided by the records they took.
"""

import contextlib
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from collectors.block import DatagramBlock
from collectors.datagram import Datagram, pack
from perf import managers, routing, snmp
from perf.measure import best_seconds, cpu_of, report, row
from perf.programs import Program
from tests.support.log_grouping import (
    NAMES,
    grouping_accuracy,
    labelled_lines,
    mined_groups,
)
from tests.support.syslog_messages import ARRIVAL_NS, lines, make_syslog

Rows = list[dict[str, object]]
LINES = 200_000
CHUNK_BYTES = 65_536
SHARED = Path(__file__).parents[2] / "shared"


# ---- syslog ----------------------------------------------------------------------------------------


def syslog_lines() -> list[bytes]:
    """Return log lines as a network has them: one in fifty is one that Tocsin knows the meaning of."""
    known = lines(LINES // 50)
    made = []
    for n in range(LINES):
        a, b = n * 2_654_435_761 % 65_521, n * 40_503 % 251
        made.append(
            next(known)
            if n % 50 == 0
            else (
                (
                    f"<134>Sep 21 14:13:20 fw{n % 40} kernel: DROP IN=eth{b % 8} SRC=10.{b}.{a % 251}.7"
                    f" DST=192.0.2.{a % 250} LEN={a % 1500} PROTO=TCP SPT={a} DPT={b * 17}"
                ),
                (
                    f"<38>Sep 21 14:13:20 jump{n % 9} sshd[{a}]: Accepted publickey for user{a % 300} from"
                    f" 203.0.113.{b} port {a} ssh2"
                ),
                (
                    f"<190>{n}: r{n % 200}: Sep 21 14:13:20.{b:03}: %SEC-6-IPACCESSLOGP: list 102 denied tcp"
                    f" 10.0.{b}.5({a}) -> 172.16.{b}.7(139), 1 packet"
                ),
                (
                    f'<165>1 2026-09-21T14:13:20.{b:03}Z mx{n % 60} rpd 1201 - [a@1 n="{a}"] task {a % 40}'
                    f" took {b} ms of its slot {a % 7}"
                ),
            )[n % 4].encode()
        )
    return made


def stream_blocks(made: list[bytes]) -> list[DatagramBlock]:
    """Return lines as chunks of one TCP connection, 20 ms apart, sixteen a block."""
    data = b"".join(line + b"\n" for line in made)
    chunks = [
        Datagram(ARRIVAL_NS + n * 20_000_000, 0, 1, 5, 0, data[at : at + CHUNK_BYTES])
        for n, at in enumerate(range(0, len(data), CHUNK_BYTES))
    ]
    return [pack(chunks[at : at + 16]) for at in range(0, len(chunks), 16)]


def syslog() -> Rows:
    """Lines a second from TCP chunks to columns with patterns, series and alarms."""
    made = syslog_lines()
    seconds = _decode_seconds(made)
    storm = [line for line in lines(LINES // 2) if b"LINK" in line]
    found = [
        row("syslog, TCP chunks to columns with patterns", LINES / seconds, "lines/s", 300_000),
        row("syslog", seconds / LINES * 1e6, "CPU s/M lines", None, "lower"),
        row(
            "syslog, every line raises or clears an alarm",
            len(storm) / _decode_seconds(storm),
            "lines/s",
        ),
    ]
    with contextlib.suppress(ImportError):
        found += _drain3(made)
    if shutil.which("rsyslogd"):
        found += _rsyslog(made)
    return found + (_grouping() if SHARED.is_dir() else [])


def _decode_seconds(made: list[bytes]) -> float:
    decoder, _ = make_syslog("tcp://[::]:1", lines_per_second_max=0)
    blocks = stream_blocks(made)

    def work() -> None:
        for block in blocks:
            decoder.decode(block)

    work()
    return best_seconds(work)


def _drain3(made: list[bytes]) -> Rows:
    """Drain3 on the texts alone: it neither frames nor parses."""
    from drain3 import TemplateMiner
    from drain3.template_miner_config import TemplateMinerConfig

    miner = TemplateMiner(config=TemplateMinerConfig())
    texts = [line.decode().partition(": ")[2] for line in made[: LINES // 20]]
    seconds = best_seconds(lambda: [miner.add_log_message(text) for text in texts], repeats=1)
    return [
        row("peer Drain3, patterns alone", len(texts) / seconds, "lines/s"),
        row(
            "peer Drain3, patterns alone",
            seconds / len(texts) * 1e6,
            "CPU s/M lines",
            None,
            "lower",
        ),
    ]


def _rsyslog(made: list[bytes]) -> Rows:
    """Rsyslog from TCP to a file: it parses heads and mines nothing."""
    data = b"".join(line + b"\n" for line in made) * 4
    with tempfile.TemporaryDirectory() as name, rsyslog(Path(name)) as (port, process, output):
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.sendall(data)
        deadline = time.monotonic() + 60
        while _count(output) < 4 * LINES and time.monotonic() < deadline:
            time.sleep(0.2)
        took, seconds = _count(output), cpu_of(process.pid)
    return [
        row("peer rsyslog, TCP to a file, no patterns", took / seconds, "lines/s"),
        row("peer rsyslog", seconds / took * 1e6, "CPU s/M lines", None, "lower"),
    ]


@contextlib.contextmanager
def rsyslog(folder: Path) -> Iterator[tuple[int, Program, Path]]:
    """Run rsyslogd in the foreground, from TCP to a file; give port, process and file."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    output = folder / "lines"
    (folder / "rsyslog.conf").write_text(
        f'module(load="imtcp")\ninput(type="imtcp" port="{port}" address="127.0.0.1")\n'
        f'action(type="omfile" file="{output}" flushOnTXEnd="on")\n'
    )
    process = Program(
        ["rsyslogd", "-n", "-f", str(folder / "rsyslog.conf"), "-i", str(folder / "pid")], folder
    )
    try:
        for _ in range(100):
            process.must_run()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.1)
        yield port, process, output
    finally:
        process.terminate()
        process.wait(10)


def _count(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _grouping() -> Rows:
    """Grouping accuracy on loghub's labelled lines, ours and Drain3's."""
    found: Rows = []
    for name in NAMES:
        texts, labels = labelled_lines(SHARED, name)
        ours = grouping_accuracy(mined_groups(texts), labels)
        found.append(row(f"grouping accuracy {name}", ours, "share"))
        with contextlib.suppress(ImportError):
            from drain3 import TemplateMiner
            from drain3.template_miner_config import TemplateMinerConfig

            miner = TemplateMiner(config=TemplateMinerConfig())
            theirs = [miner.add_log_message(text)["cluster_id"] for text in texts]
            found.append(
                row(
                    f"grouping accuracy {name}, peer Drain3",
                    grouping_accuracy(theirs, labels),
                    "share",
                )
            )
    return found


STREAMS: dict[str, Callable[[], Rows]] = {
    "syslog": syslog,
    "bmp": routing.bmp,
    "pm-files": routing.pm_files,
    "ves": managers.ves,
    "netcool": managers.netcool,
    "ingest": managers.ingest,
    "snmp-trap": snmp.traps,
    "snmp-poll": snmp.polling,
}


def main() -> None:
    wanted = sys.argv[1:] or list(STREAMS)
    report("collectors", [one for name in wanted for one in STREAMS[name]()])


if __name__ == "__main__":
    main()
