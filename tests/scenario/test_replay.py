"""Replay = live: the same capture gives the same bytes, however it is cut, paced and sharded."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from collectors.block import DatagramBlock
from detectors.config import DetectionSettings
from runtime.clock import ManualClock
from tests.support.demo_capture import (
    CHANGING,
    SECOND,
    START_NS,
    changing_exporter,
    write_demo_capture,
)
from tocsin.cases.replay import Replay, pace
from tocsin.config import Config, NetworkSettings, ViewsSettings
from tocsin.demo.network import load_demo_network
from tocsin.demo.settings import FOLDER
from tocsin.demo.traffic import Fault

SECONDS = 150


def config() -> Config:
    return Config(
        views=ViewsSettings(tick_seconds=5.0, lateness_seconds=1.0),
        network=NetworkSettings(map=str(FOLDER / "network.toml")),
        detection=DetectionSettings(
            warmup_ticks=10, warmup_seconds=50.0, false_alerts_per_day=100.0
        ),
    )


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """Two and a half minutes of the demo network with three faults, and an exporter of changes."""
    path = tmp_path_factory.mktemp("capture") / "demo.pcapng"
    link = load_demo_network().links_used()[0]
    faults = (
        Fault("link-cut", link, START_NS + 80 * SECOND, START_NS + 110 * SECOND),
        Fault("exporter-down", "vie1", START_NS + 115 * SECOND, START_NS + 145 * SECOND),
        Fault(
            "volumetric-attack", load_demo_network().prefix_text[31], START_NS + 95 * SECOND,
            START_NS + 120 * SECOND, (),
            {"vector": "ntp-amplification", "flows_per_second": 60.0, "host": 9},
        ),
    )  # fmt: skip
    more = tuple(changing_exporter(SECONDS))
    model = write_demo_capture(path, seconds=SECONDS, faults=faults, more=more)
    return path, model + 20 * len(more)


@pytest.fixture(scope="module")
def whole(capture: tuple[Path, int]) -> list[bytes]:
    """The alerts of the capture, replayed whole."""
    return list(Replay(config()).captures([capture[0]]))


def test_every_record_is_decoded_and_the_faults_are_found(
    capture: tuple[Path, int], whole: list[bytes]
) -> None:
    run = Replay(config())
    assert list(run.captures([capture[0]])) == whole
    assert run.summary.records == capture[1]
    text = b"\n".join(whole).decode()
    for kind in ("link-cut", "exporter-down", "volumetric-attack"):
        assert f'"kind":"{kind}"' in text
    assert f'"entity":"{CHANGING}"' in text  # its silence is known: its records were understood
    assert text.count('"state":"raised"') == 4


# 25 cuts of every block, at other places for each seed: between template and data, within a change.
@pytest.mark.parametrize("seed", range(4))
def test_random_cuts_change_nothing(
    capture: tuple[Path, int], whole: list[bytes], seed: int
) -> None:
    random = np.random.default_rng(seed)

    def cut(block: DatagramBlock) -> Iterator[DatagramBlock]:
        edges = np.unique(random.integers(0, block.datagrams + 1, 25)).tolist()
        for start, stop in zip([0, *edges], [*edges, block.datagrams], strict=True):
            part = block.slice(start, stop)
            # What a live receiver knows after this part: nothing of what comes behind it.
            frontier = int(part.arrival_ns[-1]) if part.datagrams else 0
            yield DatagramBlock(
                part.payload, part.offset, part.length, part.exporter_high, part.exporter_low,
                part.exporter_port, part.arrival_ns, 0, frontier,
            )  # fmt: skip

    assert list(Replay(config()).captures([capture[0]], cut=cut)) == whole


def test_three_shards_give_the_same_bytes(capture: tuple[Path, int], whole: list[bytes]) -> None:
    assert list(Replay(config(), shards=3).captures([capture[0]])) == whole


def test_another_speed_gives_the_same_bytes(capture: tuple[Path, int], whole: list[bytes]) -> None:
    clock = ManualClock()
    assert list(Replay(config()).captures([capture[0]], pace=pace(clock, 60.0))) == whole
    # Time counts from the end of the first block.
    assert 0.8 * SECONDS / 60 * 1e9 < clock.now_ns() <= SECONDS / 60 * 1e9


def test_a_prefix_gives_a_prefix(
    capture: tuple[Path, int], whole: list[bytes], tmp_path: Path
) -> None:
    data = capture[0].read_bytes()
    for share in (0.5, 0.7, 0.9):
        short = tmp_path / "short.pcapng"
        short.write_bytes(data[: int(len(data) * share)])
        run = Replay(config())
        alerts = list(run.captures([short]))
        assert alerts == whole[: len(alerts)]
        assert run.summary.damage == [] or "cut" in run.summary.damage[0]


def test_flush_closes_what_is_open_and_says_partial(
    capture: tuple[Path, int], whole: list[bytes]
) -> None:
    alerts = list(Replay(config()).captures([capture[0]], flush=True))
    assert alerts[: len(whole)] == whole
    rest = [msgspec.json.decode(alert) for alert in alerts[len(whole) :]]
    assert all(alert["partial"] for alert in rest)
    # Nothing is closed that holds no record: it would look like silence.
    end_ns = START_NS + SECONDS * SECOND
    assert all(alert["changed_ns"] <= end_ns + 11 * SECOND for alert in rest)
