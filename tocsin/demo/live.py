"""The live demo: a whole Tocsin in processes of its own, fed over real sockets, scored at the end."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import msgspec
import zmq

from alerting.words.alert import Alert
from alerting.words.wording import human
from runtime import logs
from runtime.bus import RequestClient
from runtime.clock import SystemClock
from runtime.lock import FolderLock
from runtime.memory import children_of, pss_bytes
from runtime.metrics import Metrics
from runtime.supervisor import Supervisor
from telemetry.errors import TransientError
from tocsin import __version__, verbs
from tocsin.chain.intake import make_context
from tocsin.config import load_config
from tocsin.demo.bootstrap import prepare_state
from tocsin.demo.faults import scripted, write_truth
from tocsin.demo.network import load_demo_network
from tocsin.demo.scoring import judge, table
from tocsin.demo.settings import FOLDER, demo_config, free_port
from tocsin.demo.snmp_speaker import COMMUNITY
from tocsin.demo.traffic import Fault, TrafficModel
from tocsin.supervisor.processes import roles

DAYS = 14
READY_SECONDS = 120.0
FOOTER_SECONDS = 5.0
STOP_SECONDS = 15.0  # the desk stores what it has, beside whatever else this machine does
# What listens where; agents and the alarm list are the carrier's, the rest is ours.
PORTS = (
    ("flow", 2055, socket.SOCK_DGRAM),
    ("sflow", 6343, socket.SOCK_DGRAM),
    ("syslog", 5514, socket.SOCK_DGRAM),
    ("trap", 5162, socket.SOCK_DGRAM),
    ("bmp", 11019, socket.SOCK_STREAM),
    ("snmp", 1161, socket.SOCK_DGRAM),
    ("alarms", 8642, socket.SOCK_STREAM),
    ("api", 8470, socket.SOCK_STREAM),
    ("sql", 8123, socket.SOCK_STREAM),
)
AGENTS_HOST = "127.1.0.1"  # agents listen on the routers' addresses; another demo has the first too
POLL_SECONDS = 10.0
VOICES = ("syslog", "trap", "bmp", "snmp", "alarms")


class LiveDemo:
    """One run of the demo."""

    def __init__(
        self,
        folder: Path,
        *,
        seconds: float | None,
        seed: int,
        profile: str,
        records_per_second: float,
    ) -> None:
        self._folder = folder
        self._state = folder / "state"
        self._seconds = seconds
        self._seed = seed
        self._profile = profile
        self._rate = records_per_second
        self._clock = SystemClock()
        self._metrics = Metrics("demo")
        self._ended = False
        self._alerts: list[dict[str, Any]] = []
        self._faults: tuple[Fault, ...] = ()

    def run(self) -> int:
        """Run to the end; return the exit code."""
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        logs.set_up("demo", self._metrics, self._clock, level="warning")
        self._folder.mkdir(parents=True, exist_ok=True)
        lock = FolderLock(self._folder, "demo", self._clock)
        lock.take()  # freed by the end of this process
        self._warm()
        config_path = self._prepare()
        config = load_config(config_path)
        supervisor = Supervisor(
            roles(config.for_processes(), config_path, self._state),
            make_context("supervisor", self._clock, self._metrics, self._seed),
        )
        supervisor.start()
        client = RequestClient(f"ipc://{self._state}/node.sock")
        sender: subprocess.Popen[str] | None = None
        try:
            status = self._wait_ready(client, supervisor)
            self._banner(config.api.listen, status)
            start_ns = self._clock.now_ns()
            self._faults = scripted(load_demo_network(), start_ns=start_ns, seed=self._seed)
            sender = self._send(start_ns)
            watcher = self._watch()
            until = start_ns + round(self._seconds * 1e9) if self._seconds else 1 << 62
            self._follow(client, supervisor, watcher, until)
            if self._alerts or self._faults:
                self._end(start_ns)
        finally:
            client.close()
            if sender is not None:
                sender.send_signal(signal.SIGINT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    sender.wait(3)
                sender.kill()
            supervisor.stop(timeout_seconds=STOP_SECONDS)
        return 0

    def _stop(self, number: int, frame: object) -> None:  # noqa: ARG002
        self._ended = True

    # ---- before

    def _warm(self) -> None:
        """Compile kernels into the cache once, visibly; without a cache each process does it alone."""
        if os.environ.get("TOCSIN_KERNELS") == "memory":
            return
        mark = self._folder.parent / "kernels" / f".warm-{_code_mark()}"
        if mark.exists():
            return
        click.echo("compiling kernels (once, up to a minute) ...")
        subprocess.run(
            [sys.executable, "-m", "tocsin", "warm", "--state", str(self._folder.parent)],
            check=True,
        )
        with contextlib.suppress(OSError):
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()

    def _prepare(self) -> Path:
        """Make a fresh state folder that has seen two weeks of this network."""
        config = demo_config()
        now_ns = self._clock.now_ns()
        if self._state.exists():
            shutil.rmtree(self._state)
        kept = self._folder / f"history-{self._seed}-{now_ns // 86_400_000_000_000}-{_code_mark()}"
        if not kept.exists():
            for old in self._folder.glob("history-*"):
                shutil.rmtree(old)
            new = self._folder / "history.new"
            if new.exists():
                shutil.rmtree(new)
            new.mkdir(parents=True)
            model = TrafficModel(
                load_demo_network(), seed=self._seed, records_per_second=self._rate
            )
            show = sys.stderr.isatty()

            def progress(done: int, total: int) -> None:
                if show:
                    click.echo(f"\rtwo weeks of history {done}/{total}", err=True, nl=False)

            click.echo("making two weeks of history (once a day) ...")
            prepare_state(
                config, model, new, until_ns=now_ns // 5_000_000_000 * 5_000_000_000,
                days=DAYS, progress=progress,
            )  # fmt: skip
            if show:
                click.echo("", err=True)
            new.rename(kept)
        # Linked, not copied: nothing of it is ever written again, and the first fsync of the node
        # would wait until 100 MB of copies are on the disk.
        shutil.copytree(kept, self._state, copy_function=os.link)
        return self._write_config()

    def _write_config(self) -> Path:
        text = (FOLDER / "demo.toml").read_text("utf-8")
        self._ports = {}
        for name, wanted, kind in PORTS:
            port = free_port(wanted, kind, AGENTS_HOST if name == "snmp" else "127.0.0.1")
            self._ports[name] = port
            if port != wanted:
                click.echo(f"port {wanted} is busy, {name} is on {port}")
                text = text.replace(f"127.0.0.1:{wanted}", f"127.0.0.1:{port}")
        text = text.replace('profile = "site"', f'profile = "{self._profile}"')
        text += f'metrics_listen = "127.0.0.1:{self._ports["api"]}"\n'
        text += f'\n[network]\nmap = "{FOLDER / "network.toml"}"\n'
        file = self._state / "alerts.jsonl"
        text += f'\n[alerting.sinks.file]\nkind = "file"\nsend = "incidents"\npath = "{file}"\n'
        text += self._polling()
        path = self._state / "demo.toml"
        path.write_text(text, "utf-8")
        return path

    def _polling(self) -> str:
        """Return the table that has every router's agent polled; it names files written here."""
        if find_spec("gufo") is None:  # profile sensor is installed without it
            return ""
        devices, community = self._state / "devices.toml", self._state / "community"
        community.write_text(COMMUNITY.decode(), "ascii")
        community.chmod(0o600)
        port = self._ports["snmp"]
        devices.write_text(
            "".join(
                f'[[device]]\nname = "{one.name}"\naddress = "{one.address}"\nport = {port}\n'
                for one in load_demo_network().file.router
            ),
            "utf-8",
        )
        return (
            f'\n[sources.polling]\nkind = "snmp-poll"\n[sources.polling.options]\n'
            f'devices_file = "{devices}"\ninterval_seconds = {POLL_SECONDS}\n'
            f'credentials = {{ default = {{ community_file = "{community}" }} }}\n'
        )

    def _wait_ready(self, client: RequestClient, supervisor: Supervisor) -> verbs.Status:
        until = self._clock.monotonic_ns() + round(READY_SECONDS * 1e9)
        while self._clock.monotonic_ns() < until and not self._ended:
            code = supervisor.poll()
            if code is not None:
                raise SystemExit(code)
            try:
                return client.ask("status", verbs.Nothing(), verbs.Status, timeout_seconds=0.5)
            except TransientError:
                self._clock.sleep(0.1)
        raise TransientError("the node did not become ready; see the lines above")

    def _banner(self, api: str, status: verbs.Status) -> None:
        lines = [
            "",
            f"Tocsin {__version__} watches a demo carrier of 30 routers and 72 links.",
            "  inputs   " + ", ".join(listener.address for listener in status.listeners),
        ]
        if self._profile != "sensor":
            lines += [f"  console  http://{api}/", f"  API      http://{api}/api/v1/alarms"]
        lines += [
            f"  metrics  http://{api}/metrics",
            f"  state    {self._state}",
            "Faults are played now; each line FOUND is an alert. Ctrl-C ends it.",
            "",
        ]
        click.echo("\n".join(lines))

    # ---- while it runs

    def _send(self, start_ns: int) -> "subprocess.Popen[str]":
        wish = {
            "seed": self._seed,
            "start-ns": start_ns,
            "for": (self._seconds or 86_400.0) + 5.0,
            "flow-port": self._ports["flow"],
            "sflow-port": self._ports["sflow"],
            "records-per-second": self._rate,
        } | {f"{name}-port": self._ports[name] for name in VOICES}
        flags = [f"--{name}={value}" for name, value in wish.items()]
        made = subprocess.Popen(
            [sys.executable, "-m", "tocsin.demo.exporters", *flags],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
        threading.Thread(target=self._tell_played, args=(made,), daemon=True).start()
        return made

    def _tell_played(self, sender: "subprocess.Popen[str]") -> None:
        assert sender.stdout is not None
        for line in sender.stdout:
            with contextlib.suppress(ValueError):
                fields = json.loads(line)
                click.echo(f"{_stamp()} PLAYED {fields['played']}")

    def _watch(self) -> "zmq.Socket[bytes]":
        watcher: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.SUB)
        watcher.setsockopt(zmq.LINGER, 0)
        watcher.subscribe(b"incidents")
        watcher.connect(f"ipc://{self._state}/frames.sock")
        return watcher

    def _follow(
        self,
        client: RequestClient,
        supervisor: Supervisor,
        watcher: "zmq.Socket[bytes]",
        until_ns: int,
    ) -> None:
        footer_due = self._clock.monotonic_ns() + round(FOOTER_SECONDS * 1e9)
        before = (0, self._clock.monotonic_ns())
        while not self._ended and self._clock.now_ns() < until_ns:
            supervisor.poll()
            if watcher.poll(200):
                alert = msgspec.json.decode(watcher.recv_multipart()[2], type=Alert)
                self._alerts.append(msgspec.to_builtins(alert))
                delay = None
                if alert.state == "raised":
                    delay = (self._clock.now_ns() - self._began(alert)) / 1e9
                click.echo(f"{_stamp()} {human(alert, delay_seconds=delay)}")
            now = self._clock.monotonic_ns()
            if now < footer_due:
                continue
            footer_due = now + round(FOOTER_SECONDS * 1e9)
            with contextlib.suppress(TransientError):
                status = client.ask("status", verbs.Nothing(), verbs.Status)
                rate = (status.records - before[0]) / (now - before[1]) * 1e9
                before = (status.records, now)
                memory = _memory_bytes(supervisor)
                click.echo(
                    f"{_stamp()} {rate:,.0f} records/s, {status.series} series, alert budget used "
                    f"{status.budget_used:.0f} of {status.budget_per_day:g} a day (hard faults stand "
                    f"outside it), memory {memory / 1e6:.0f} MB"
                )

    def _began(self, alert: Alert) -> int:
        """Return when the fault behind an alert began, or when the alert says it did."""
        for fault in reversed(self._faults):
            if fault.entity == alert.entity and fault.start_ns <= alert.changed_ns:
                return fault.start_ns
        return alert.raised_ns

    def _end(self, start_ns: int) -> None:
        now_ns = self._clock.now_ns()
        config = demo_config()
        write_truth(self._faults, self._state / "truth.jsonl", start_ns=start_ns, end_ns=now_ns)
        score = judge(
            [fault for fault in self._faults if fault.start_ns < now_ns],
            self._alerts,
            tick_ns=round(config.views.tick_seconds * 1e9),
            lateness_ns=round(config.views.lateness_seconds * 1e9),
            until_ns=now_ns,
        )
        click.echo("\n" + table(score))
        click.echo(
            "\nTry next:\n"
            "  tocsin demo --days 1 --speed max     a simulated day with faults drawn at random\n"
            "  tocsin decode FILE.pcap              the records of a capture of yours\n"
            "  tocsin run                           listen on 2055, 4739 and 6343 for real routers"
        )


def _memory_bytes(supervisor: Supervisor) -> int:
    """Return what Tocsin's processes take, the network that is played not counted.

    Pages that several have are counted once. The supervisor is in this process, with the demo's own parts:
    alone it takes 16 MB.
    """
    found = list(supervisor.pids().values())
    for pid in found:
        found += children_of(pid)  # the desk's teacher
    return sum(map(pss_bytes, found))


def _stamp() -> str:
    return time.strftime("%H:%M:%S")


def _code_mark() -> str:
    """Return a mark that changes with the code, so that no stale cache or history is used."""
    import zlib

    root = Path(__file__).parents[2]
    mark = 0
    for package in ("telemetry", "runtime", "collectors", "correlator", "detectors", "tocsin/demo"):
        for file in sorted((root / package).rglob("*.py")):
            mark = zlib.crc32(file.read_bytes(), mark)
    return f"{__version__}-{mark:08x}"
