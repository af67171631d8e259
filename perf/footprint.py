"""What Tocsin costs: resident memory by profile and process, installed size, time to start.

A real `tocsin run` and `tocsin watchdog` are fed over UDP with 1,000, 10,000 and 100,000 series
(`perf/exporters.py`, every series in every tick). Resident memory is taken 60 s after warm-up,
median of 10, summed over all processes (supervisor, node, gate, desk, watchdog), shared pages
counted in each; the share of each page (Pss) and the peak stand beside it.

With `--https` alerts go to a webhook over TLS, and there is one: that brings OpenSSL.

    python perf/footprint.py [--series 1000,10000,100000] [--profile sensor,site] [--kernels both] [--https]
"""

import argparse
import contextlib
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from compileall import compile_dir
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from perf.exporters import Exporters
from perf.measure import report, row
from perf.programs import Program
from perf.webhook import Webhook
from runtime.bus import RequestClient
from runtime.journal import pack
from runtime.kernel_library import find_library
from runtime.kernels import KERNEL_MODULES
from runtime.memory import children_of
from telemetry.batch import batch_from_rows
from telemetry.errors import TransientError
from telemetry.foreign_alarm import alarm_row
from telemetry.schemas import ALARM
from tocsin import PACKAGES, verbs
from tocsin.demo.settings import free_port

ROOT = Path(__file__).parents[1]
PYTHON = sys.executable
TICK_SECONDS = 10.0
SETTLE_SECONDS = 60.0
WARM_MOST_SECONDS = 150.0
SAMPLES = 10
ROLES = ("supervisor", "node", "gate", "desk", "watchdog")
# (profile, kernels): MB at 10,000 and at 100,000 series, installed.
GOALS = {
    ("sensor", "library"): (128, 256, 250),
    ("sensor", "numba"): (192, 320, 400),
    ("site", "library"): (600, 768, 900),
    ("site", "numba"): (600, 768, 900),
}
CONFIG = """
[node]
profile = "{profile}"
log_level = "error"
[collectors.netflow]
kind = "flow"
listen = "udp://127.0.0.1:{flow}"
[collectors.ipfix]
kind = "flow"
listen = "udp://127.0.0.1:{ipfix}"
[collectors.sflow]
kind = "sflow"
listen = "udp://127.0.0.1:{sflow}"
[views]
tick_seconds = {tick}
lateness_seconds = 2.0
[views.keys_per_tick_max]
interface = {keys}
source_prefix = {keys}
destination_prefix = {keys}
[api]
listen = "127.0.0.1:{api}"
sql_listen = "127.0.0.1:{sql}"
metrics_listen = "127.0.0.1:{api}"
[alerting.sinks.file]
kind = "file"
path = "{folder}/alerts.jsonl"
"""


@dataclass(slots=True)
class Memory:
    """One process at one moment, bytes."""

    resident: int
    proportional: int
    anonymous: int
    peak: int


def memory_of(pid: int) -> Memory | None:
    """Return the memory of a process, None where it is gone."""
    found = {}
    try:
        for file in ("smaps_rollup", "status"):
            for line in Path(f"/proc/{pid}/{file}").read_text("ascii", "replace").splitlines():
                words = line.split()
                if len(words) == 3 and words[2] == "kB":
                    found[words[0]] = int(words[1]) * 1024
        return Memory(found["VmRSS:"], found["Pss:"], found["RssAnon:"], found["VmHWM:"])
    except (OSError, KeyError):
        return None


class Instance:
    """`tocsin run` and `tocsin watchdog` on a folder of their own."""

    def __init__(self, folder: Path, profile: str, kernels: str, series: int, more: str) -> None:
        self.folder, self.profile = folder, profile
        keys = max(16_384, series // 6)  # the default, or room for more than comes
        self.state = folder / "state"
        datagram, stream = socket.SOCK_DGRAM, socket.SOCK_STREAM
        first = 20_000 + os.getpid() % 2_000 * 6  # a range of our own: others measure here too
        self.flow_port = free_port(first, datagram)
        config = folder / "tocsin.toml"
        config.write_text(
            CONFIG.format(
                keys=keys,
                profile=profile, folder=folder, tick=TICK_SECONDS, flow=self.flow_port,
                ipfix=free_port(first + 1, datagram), sflow=free_port(first + 2, datagram),
                api=free_port(first + 3, stream), sql=free_port(first + 4, stream),
            ) + more
        )  # fmt: skip
        self._config = config
        self.environment = environment_of(kernels, folder)
        self._processes: dict[str, Program] = {}
        self.began = 0.0

    def start(self) -> "Instance":
        """Start both."""
        run = [PYTHON, "-m", "tocsin", "run", "-c", str(self._config), "--state", str(self.state)]
        watch = [PYTHON, "-m", "tocsin", "watchdog", "--state", str(self.state)]
        self.began = time.perf_counter()
        for name, command in (("supervisor", run), ("watchdog", watch)):
            self._processes[name] = Program(
                command, self.folder, name=name, environment=self.environment
            )
        return self

    def must_run(self) -> None:
        """End the measurement where one of them has ended."""
        for process in self._processes.values():
            process.must_run()

    def pids(self) -> dict[str, int]:
        """Return the processes by role."""
        found = {name: process.pid for name, process in self._processes.items()}
        for pid in children_of(found["supervisor"]):
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                role = next((w for w in words if w.startswith(b"tocsin.")), b"tocsin.other")
                found[role.decode().rpartition(".")[2]] = pid
        return found

    def status(self) -> verbs.Status | None:
        """Return what the node says, None while it does not."""
        if not (self.state / "node.sock").exists():
            return None
        client = RequestClient(f"ipc://{self.state}/node.sock")
        try:
            return client.ask("status", verbs.Nothing(), verbs.Status, timeout_seconds=2.0)
        except TransientError:
            return None
        finally:
            client.close()

    def alarm(self) -> None:
        """Tell the node of an alarm, as its gate does for sources."""
        row = alarm_row(
            source="perf", kind="perf", entity="router", severity="critical",
            changed_ns=time.time_ns(), title="out of service",
        )  # fmt: skip
        data = pack([batch_from_rows(ALARM, [row])])
        client = RequestClient(f"ipc://{self.state}/node.sock")
        client.ask("offer", verbs.Offered(source="perf", token="1", data=data), verbs.Nothing)
        client.close()

    def stop(self) -> None:
        """Stop all."""
        for process in self._processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self._processes.values():
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)


def environment_of(kernels: str, folder: Path) -> dict[str, str]:
    """Return the environment in which kernels come from numba's cache, or from the library, which must be there."""
    if kernels == "library":
        library, why = find_library(KERNEL_MODULES)
        if library is None:
            raise SystemExit(f"{why}\nmake library: makes it, in a minute or two")
    # As on a box that was set up: what is compiled at each start instead stays in memory, 1 MB a process.
    for package in PACKAGES:
        compile_dir(ROOT / package, quiet=2)
    made = {**os.environ, "PYTHONPATH": str(ROOT), "TOCSIN_STATE_DIR": str(folder / "state")}
    if kernels == "library":
        made["TOCSIN_KERNELS"] = "library"
    else:
        made["TOCSIN_KERNELS"] = "numba"  # a library beside the code would be preferred
        made["NUMBA_CACHE_DIR"] = str(Path(tempfile.gettempdir()) / "tocsin-perf-kernels")
    made.pop("PYTHONDONTWRITEBYTECODE", None)
    return made


@contextlib.contextmanager
def running(profile: str, kernels: str, series: int = 0, more: str = "") -> Iterator[Instance]:
    """Run an instance in a folder that goes with it, with `more` in its configuration."""
    with tempfile.TemporaryDirectory() as name:
        instance = Instance(Path(name), profile, kernels, series, more).start()
        try:
            yield instance
        finally:
            instance.stop()


def feed(exporters: Exporters, seconds: float, per_second: float) -> None:
    """Send for so long; four times a second, so that receiving is as on a busy box."""
    began, sent = time.monotonic(), 0
    while (past := time.monotonic() - began) < seconds:
        due = int(past * per_second)
        exporters.send(due - sent, time.time_ns())
        sent = due
        time.sleep(0.05)


def resident(
    profile: str, kernels: str, series: int, taker: Webhook | None = None
) -> list[dict[str, object]]:
    """Feed so many series and return the rows of memory."""
    with running(profile, kernels, series, taker.sink if taker else "") as instance:
        exporters = Exporters(series, port=instance.flow_port)
        # Each series comes in each tick, at 500 datagrams a second at least once every 10 s.
        rate = exporters.datagrams_per_cycle / (TICK_SECONDS * 0.9)
        until = time.monotonic() + WARM_MOST_SECONDS
        while time.monotonic() < until:
            feed(exporters, TICK_SECONDS, rate)
            instance.must_run()
            status = instance.status()
            if status is not None and status.series >= series and status.ticks >= 3:
                break
        else:
            raise SystemExit(f"{profile}: {status} after {WARM_MOST_SECONDS} s of {series} series")
        if taker:
            instance.alarm()
        feed(exporters, SETTLE_SECONDS, rate)
        assert not taker or taker.taken, "nothing was posted"
        samples: list[dict[str, Memory]] = []
        for _ in range(SAMPLES):
            feed(exporters, TICK_SECONDS / 4, rate)
            found = {name: memory_of(pid) for name, pid in instance.pids().items()}
            samples.append({name: one for name, one in found.items() if one is not None})
        exporters.close()
        status = instance.status()
        assert status is not None
        assert status.series >= series
    return memory_rows(profile, kernels + (", https" if taker else ""), series, samples)


def memory_rows(
    profile: str, kernels: str, series: int, samples: list[dict[str, Memory]]
) -> list[dict[str, object]]:
    """Return the sum and each process: medians of the samples."""
    at = f"{profile}, {kernels}, {series:,} series"
    goals = GOALS.get((profile, kernels.partition(",")[0]))
    goal = {10_000: goals[0], 100_000: goals[1]}.get(series) if goals else None
    total = statistics.median(sum(m.resident for m in sample.values()) for sample in samples)
    rows = [row(f"RSS {at}", total / 1e6, "MB", goal, "lower")]
    for name in ROLES:
        of = [sample[name] for sample in samples if name in sample]
        if not of:
            continue
        for label, values in (
            ("", [m.resident for m in of]),
            (" Pss", [m.proportional for m in of]),
            (" anonymous", [m.anonymous for m in of]),
            (" peak", [m.peak for m in of]),
        ):
            rows.append(
                row(f"  {name}{label}, {at}", statistics.median(values) / 1e6, "MB", None, "lower")
            )
    return rows


def bound(port: int) -> bool:
    """Return whether an UDP socket of this machine listens on a port."""
    tail = f":{port:04X}"
    for file in ("udp", "udp6"):
        for line in Path(f"/proc/net/{file}").read_text("ascii").splitlines()[1:]:
            if line.split()[1].endswith(tail):
                return True
    return False


def starting(profile: str, kernels: str) -> tuple[float, float]:
    """Start once; return seconds to bound sockets and to the first record decoded."""
    with running(profile, kernels) as instance:
        exporters = Exporters(1000, port=instance.flow_port)
        while not bound(instance.flow_port):
            time.sleep(0.002)
            instance.must_run()
            assert time.perf_counter() - instance.began < 120, "no socket was bound"
        sockets = time.perf_counter() - instance.began
        while True:
            exporters.send(1, time.time_ns())
            status = instance.status()
            if status is not None and status.records:
                break
            time.sleep(0.01)
            instance.must_run()
            assert time.perf_counter() - instance.began < 180, "nothing was decoded"
        decoded = time.perf_counter() - instance.began
        exporters.close()
    return sockets, decoded


def drop_page_cache() -> bool:
    """Forget every file that is in memory; return whether we may."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError:
        return False
    return True


def starts(kernels: str) -> list[dict[str, object]]:
    """Return the rows of starting: five times warm, and once from disk."""
    starting("sensor", kernels)  # fills the caches
    times = [starting("sensor", kernels) for _ in range(5)]
    goal = 1.0 if kernels == "library" else 3.0
    rows = [
        row(f"start, {kernels}: sockets bound", statistics.median(t[0] for t in times), "s", 1,
            "lower"),
        row(f"start, {kernels}: first record decoded", statistics.median(t[1] for t in times), "s",
            goal, "lower"),
    ]  # fmt: skip
    if drop_page_cache():
        sockets, decoded = starting("sensor", kernels)
        rows.append(row(f"start from disk, {kernels}: sockets bound", sockets, "s", None, "lower"))
        rows.append(
            row(f"start from disk, {kernels}: first record decoded", decoded, "s", None, "lower")
        )
    return rows


def closure(extra: str) -> set[str]:
    """Return the distributions that `tocsin[extra]` brings, itself included."""
    from packaging.requirements import Requirement

    found: set[str] = set()
    todo = [("tocsin", extra)]
    while todo:
        name, with_extra = todo.pop()
        for text in metadata.requires(name) or []:
            wanted = Requirement(text)
            if wanted.marker is not None and not wanted.marker.evaluate({"extra": with_extra}):
                continue
            if wanted.name not in found:
                found.add(wanted.name)
                todo.extend((wanted.name, one) for one in (*sorted(wanted.extras), ""))
    return found


def installed() -> list[dict[str, object]]:
    """Return what each extra takes on disk: the packages' files with their compiled bytecode."""
    own = sum(
        file.stat().st_size
        for folder in PACKAGES
        for file in (ROOT / folder).rglob("*")
        if file.is_file()
    )
    rows = []
    for label, extra, goal in (
        ("sensor, library", "", 250),
        ("sensor, numba", "jit", 400),
        ("site", "site", 900),
    ):
        total = own
        for name in closure(extra):
            for file in metadata.files(name) or []:
                with contextlib.suppress(OSError):
                    total += Path(str(file.locate())).stat().st_size
        rows.append(row(f"installed, {label}", total / 1e6, "MB", goal, "lower"))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", default="1000,10000,100000")
    parser.add_argument("--profile", default="sensor,site")
    parser.add_argument("--kernels", default="library,numba")
    parser.add_argument("--https", action="store_true")
    parser.add_argument("--only", default="installed,starts,resident")
    arguments = parser.parse_args()
    only, rows = arguments.only.split(","), []
    if "installed" in only:
        rows += installed()
    for kernels in arguments.kernels.split(","):
        if "starts" in only:
            rows += starts(kernels)
        for profile in arguments.profile.split(","):
            if "resident" not in only or (profile, kernels) not in GOALS:
                continue
            for series in arguments.series.split(","):
                with Webhook.serving() if arguments.https else contextlib.nullcontext() as taker:
                    rows += resident(profile, kernels, int(series), taker)
    report("footprint", rows)


if __name__ == "__main__":
    main()
