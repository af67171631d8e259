"""Every kernel's calls in one run of the whole chain, kept and made again in other ways.

`python -m tests.support.kernel_calls record FILE CAPTURE...` replays captures and keeps what each
kernel was given; `repeat FILE` makes these calls again with the kernels of its own process (by
numba, by a library, or as plain Python: the environment says which) and prints one line for each,
`kernel number digest`, over the answer and every array after the call.
"""

import hashlib
import sys
from pathlib import Path
from typing import Any

import numpy as np

from runtime import kernels

CALLS_MAX = 12  # of each kernel: the first ones, and then ever rarer ones
PLAIN_BYTES_MAX = 400_000  # larger calls take plain Python minutes
# Their arguments are addresses of their own memory: only a live socket can feed them.
WITHOUT = ("collectors.listen.receive.receive", "collectors.listen.receive.wait")


class Recording:
    """Keeps a copy of what kernels are given."""

    def __init__(self) -> None:
        self.calls: dict[str, np.ndarray] = {}
        self._seen: dict[str, int] = {}

    def take(self, name: str, arguments: tuple[Any, ...]) -> None:
        """Keep this call if it is the first, second, fourth, eighth, ... of its kernel."""
        number = self._seen[name] = self._seen.get(name, 0) + 1
        if name in WITHOUT or number & (number - 1) or number.bit_length() > CALLS_MAX:
            return
        for i, argument in enumerate(arguments):
            array = isinstance(argument, np.ndarray)
            writable = "w" if array and argument.flags.writeable else "r" if array else "n"
            self.calls[f"{name}|{number}|{i:02d}|{writable}"] = np.array(argument)


def record(path: Path, captures: list[Path]) -> None:
    """Replay the captures and write what kernels were given."""
    from tests.scenario.test_replay import config
    from tocsin.cases.replay import Replay

    recording, compiled = Recording(), kernels.Kernel.__call__

    def spy(self: kernels.Kernel[..., Any], *arguments: Any) -> Any:
        recording.take(self.name, arguments)
        return compiled(self, *arguments)

    kernels.Kernel.__call__ = spy  # type: ignore[method-assign]
    for capture in captures:
        list(Replay(config(), shards=3).captures([capture]))
    crowd_groups()
    log_lines()
    routes_and_traps()
    shed_flows()
    fold_samples()
    look_ahead()
    receive_datagrams(path.parent)
    score_a_series()
    triage_alarms()
    meet_by_the_clock()
    with path.open("wb") as file:
        np.savez(file, **recording.calls)  # type: ignore[arg-type]


def log_lines() -> None:
    """Decode log lines as datagrams and as a stream, with more patterns than there is room for."""
    from tests.support.syslog_messages import SYSLOG_LINES, block, make_syslog

    for listen in ("udp://[::]:1", "tcp://[::]:1"):
        decoder, _ = make_syslog(listen, patterns_max=256)
        words = (f"{'abcdefghij'[n % 10] * (n // 10 + 1)}" for n in range(400))
        odd = [f"<13>Sep 21 14:13:20 h a: {word} {word}ing {word}ed".encode() for word in words]
        lines = [one + b"\n" for one in [*SYSLOG_LINES, *odd]]
        for start in range(0, len(lines), 50):
            decoder.decode(block(*lines[start : start + 50]))
        decoder.advance(1 << 62)


def routes_and_traps() -> None:
    """Decode BMP sessions of routes beyond the first table, join them, and traps of many sorts."""
    import struct

    from collectors.config import ListenerSettings
    from collectors.datagram import Datagram, pack
    from collectors.registry import make_decoder
    from correlator.tables.routing import RoutingTable
    from telemetry.identity import address_pair
    from tests.support import bmp_messages
    from tests.support.snmp_messages import varied
    from tocsin.demo.bmp_speaker import BmpSpeaker
    from tocsin.demo.network import load_demo_network
    from tocsin.testing import make_context

    speaker = BmpSpeaker(load_demo_network(), "ams1")
    many = [
        bmp_messages.monitoring(
            bmp_messages.update(
                bmp_messages.usual(),
                b"".join(b"\x20" + struct.pack("!I", first + k) for k in range(500)),
            )
        )
        for first in range(0, 12_000, 500)
    ]
    routes = bmp_messages.make_decoder()
    routes.decode(bmp_messages.chunks([*speaker.begin(0), *speaker.state(["ams1-fra2"], 0)]))
    table = RoutingTable()
    for batch in routes.decode(bmp_messages.chunks([bmp_messages.peer_up(), *many], port=4001)):
        if batch.schema.name == "route":
            table.learn(batch)
    table.origin("0.0.0.7")
    settings = ListenerSettings(kind="snmp-trap", listen="udp://[::]:5162")
    traps = make_decoder(settings, make_context("collectors.traps"))
    sender = address_pair("127.1.0.1")
    traps.decode(pack([Datagram(n, *sender, 4000, 5162, one) for n, one in enumerate(varied(300))]))


def shed_flows() -> None:
    """Take a sample of a stream far over its limit."""
    from collectors.config import FlowDecoderSettings
    from collectors.flow.decoder import FlowDecoder
    from tests.support.flow_messages import block, v5
    from tocsin.testing import make_context

    decoder = FlowDecoder(FlowDecoderSettings(datagrams_per_second_max=10), make_context())
    decoder.decode(block(*(v5((1, 2, 3), sequence=i) for i in range(100))))


def fold_samples() -> None:
    """Fold gauges, counters that wrap and restart, and deltas, for some ticks and series."""
    from correlator.sample_windows import SampleWindows
    from correlator.views import SampleViewSettings, sample_view
    from telemetry.batch import batch_from_rows
    from telemetry.sample_series import SeriesNames
    from telemetry.schemas import SAMPLE
    from tocsin.testing import make_context

    settings = SampleViewSettings(tick_seconds=10.0, lateness_seconds=5.0, series_max=40)
    views = tuple(sample_view(name, settings) for name in ("sample", "slow_sample"))
    windows = SampleWindows(views, make_context(), event_tick_ns=10**9, idle_seconds=1e6)
    names, random = SeriesNames(), np.random.default_rng(11)
    for second in range(1, 60):
        rows = [
            {
                "time_ns": second * 10**9,
                "arrival_ns": second * 10**9,
                "series_id": names.id("ams1", f"m{n}"),
                "value": float(random.integers(0, 1000)) + (second % 20) * 50.0,
                "kind": n % 3,
            }
            for n in range(60)
        ]
        windows.advance(second * 10**9)
        new = names.new()
        windows.process([*([new] if new else []), batch_from_rows(SAMPLE, rows)])


def look_ahead() -> None:
    """Forecast a few series for two days, one with gaps and one with a limit below."""
    from detectors.outlook import Outlooks

    random, looks = np.random.default_rng(13), Outlooks(120.0)
    places = np.array([looks.add() for _ in range(4)])
    looks.sign[:4], looks.limit[:4] = (1.0, -1.0, 0.0, 1.0), (120.0, 80.0, 0.0, 0.1)
    looks.usual_times[3] = 1.0
    for k in range(720):
        value = 100.0 + 0.02 * k * np.array([1.0, -1.0, 0.0, 2.0]) + random.normal(0.0, 1.0, 4)
        value[k % 5 == 0] = np.nan
        for pace, step, _ in looks.take(places, value, 240.0 * k):
            looks.breaches(pace, step)


def crowd_groups() -> None:
    """Merge more keys into the groups of every view than they may hold."""
    from correlator.groups import Groups, layout_of
    from correlator.windows_kernels import KEY_WORDS
    from tocsin.config import Config

    random = np.random.default_rng(7)
    for view in Config().all_views():
        layout = layout_of(view)
        groups = Groups(layout, keys_max=2_000)
        cells = random.integers(0, 1 << 32, (6_000, layout.words), np.uint64)
        cells[0, :KEY_WORDS] = 0
        if layout.registers:
            layout.registers_of(cells)[:] = 7
        groups.merge(cells)
        groups.settle()


def score_a_series() -> None:
    """Score a week of quarters with a daily season, a gap and a spike, and four weeks; then frames."""
    from correlator.views import views_for
    from detectors.config import DetectionSettings
    from detectors.detector import Detector, ScoreColumns
    from detectors.groups import GroupDetector, GroupOptions
    from detectors.look_kernels import LOOKS
    from detectors.looks import LookDetector, look_at
    from detectors.series import score_series
    from detectors.series_detector import SeriesDetector
    from detectors.shape_pool import SLOT_BYTES, ShapePool
    from tocsin.testing.frames import SECOND, frame

    random = np.random.default_rng(5)
    time_s = np.arange(700) * 900
    value = 100.0 + 40.0 * np.sin(time_s / 86400.0 * 2.0 * np.pi) + random.normal(0.0, 3.0, 700)
    value[300], value[400:404] = 500.0, np.nan
    score_series(time_s, value)
    score_series(time_s, random.poisson(0.02, 700) * 1.0)
    four_weeks_s = np.arange(4 * 672) * 900
    score_series(
        four_weeks_s, 50.0 * (four_weeks_s // 86_400 % 7 < 5) + random.normal(0, 1, 4 * 672)
    )
    settings, view, out = (
        DetectionSettings(warmup_seconds=60.0),
        views_for()[0],
        ScoreColumns.empty(4),
    )
    detectors: list[Detector] = [SeriesDetector(("octets",), settings)]
    for look in LOOKS:
        look_at(look, time_s, value, 900.0)
        detectors.append(LookDetector(look, ("octets",), settings))
    detectors.append(GroupDetector(view, settings, GroupOptions()))
    for nth in range(140):
        batch = frame(
            view, nth * 60 * SECOND, {name: random.poisson(90.0, 3) for name in view.scored}
        )
        for detector in detectors:
            detector.admit(batch)
            detector.score(batch, "octets", out)
            detector.learn(batch, "octets", np.ones(4, bool))
    pool = ShapePool(4 * SLOT_BYTES)
    for nth in range(700):
        pool.learn(np.zeros(1, np.int64), np.array([100.0 * np.sin(nth / 3.0) + nth % 7]))


def meet_by_the_clock() -> None:
    """Let pairs meet every bin, every third one, and at random."""
    from correlator.security_views import SecurityViewsSettings, security_views
    from detectors.security.beacons import BeaconDetector
    from tocsin.testing.frames import SECOND, frame

    detector, random = BeaconDetector(), np.random.default_rng(9)
    views = security_views(SecurityViewsSettings(), tick_seconds=60.0, lateness_seconds=5.0)
    view = next(one for one in views if one.name == detector.view)
    for nth in range(160):
        flows = np.append([5.0, float(nth % 3 == 0)], random.poisson(1.0, 6))
        rows = np.flatnonzero(flows).tolist()
        batch = frame(
            view, nth * 300 * SECOND,
            {"flows": flows[rows], "octets": 400.0 * flows[rows], "octets_m2": flows[rows]},
            rows=rows, tick_seconds=300.0,
        )  # fmt: skip
        detector.find(batch)
        detector.learn(batch, np.ones(len(rows), bool))


def triage_alarms() -> None:
    """Weigh alarms by a model that was exported."""
    from alerting.life.triage import logistic

    random = np.random.default_rng(6)
    logistic(random.random((5, 3)), random.normal(size=3), 0.2, np.zeros(5))


def receive_datagrams(folder: Path) -> None:
    """Receive from a socket, and keep the block in a raw ring."""
    import socket

    from collectors.listen.receive import Receiver
    from runtime.clock import SystemClock
    from tocsin.chain.raw_ring import RawRing
    from tocsin.testing import make_context

    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taker,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as giver,
    ):
        taker.bind(("127.0.0.1", 0))
        for size in range(40):
            giver.sendto(bytes(range(size)), taker.getsockname())
        block = Receiver(taker, SystemClock(), datagrams_max=64).receive(wait_ms=1000)
    ring = RawRing(folder / "ring", make_context(), budget_bytes=1 << 20)
    ring.start()
    ring.write("flow", block)
    ring.stop()


def repeat(path: Path) -> None:
    """Make the calls again and print their digests."""
    known = {kernel.name: kernel for kernel in kernels.registered()}
    calls: dict[tuple[str, str], list[Any]] = {}
    kept = np.load(path)
    for key in sorted(kept.files):
        name, number, _, kind = key.split("|")
        value = kept[key]
        if kind == "n":
            value = value.item()
        elif kind == "r":
            value.setflags(write=False)
        calls.setdefault((name, number), []).append(value)
    for (name, number), arguments in calls.items():
        arrays = [one for one in arguments if isinstance(one, np.ndarray)]
        answer = known[name](*arguments)
        digest = hashlib.sha256(repr(int(answer)).encode())
        for array in arrays:
            digest.update(array.tobytes())
        sys.stdout.write(f"{name} {number} {digest.hexdigest()}\n")


if __name__ == "__main__":
    what, file, *others = sys.argv[1:]
    if what == "record":
        record(Path(file), [Path(other) for other in others])
    else:
        repeat(Path(file))
