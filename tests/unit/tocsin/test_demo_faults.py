"""Faults by script and drawn by seed, and the truth file."""

import json
from pathlib import Path

import pytest

from tocsin.demo.conditions import DISK
from tocsin.demo.faults import (
    KINDS,
    NO_FAULT,
    SLOW_KINDS,
    drawn,
    played_line,
    scripted,
    write_truth,
)
from tocsin.demo.network import load_demo_network
from tocsin.demo.scoring import AFTERMATH_NS

SECOND = 1_000_000_000
DAY = 86_400 * SECOND
START = 1_790_553_600 * SECOND
NETWORK = load_demo_network()


@pytest.mark.parametrize("seed", range(20))
def test_drawn_faults_leave_room_for_each_other(seed: int) -> None:
    made = drawn(NETWORK, start_ns=START, seed=seed, days=2)
    faults = [one for one in made if one.kind not in NO_FAULT]
    assert len(faults) == 18
    assert sum(one.kind in SLOW_KINDS for one in faults) == 2
    faults.sort(key=lambda one: one.start_ns)
    for one, after in zip(faults, faults[1:], strict=False):
        assert one.end_ns + AFTERMATH_NS < after.start_ns
    for one in faults:
        assert START <= one.start_ns < one.end_ns <= START + 2 * DAY
        assert (one.start_ns - START) % (5 * SECOND) == 0
    assert sum(one.kind == "flash-crowd" for one in made) == 4


def test_all_kinds_come_up_and_a_seed_gives_the_same_day() -> None:
    kinds = {
        one.kind for seed in range(6) for one in drawn(NETWORK, start_ns=START, seed=seed, days=1)
    }
    assert kinds == {*KINDS, *SLOW_KINDS, *NO_FAULT}
    again = [drawn(NETWORK, start_ns=START, seed=9, days=1) for _ in range(2)]
    assert again[0] == again[1]
    assert again[0] != drawn(NETWORK, start_ns=START, seed=10, days=1)


def test_script_of_a_minute_and_a_half_shows_five_faults_and_a_crowd() -> None:
    begun = [one for one in scripted(NETWORK, start_ns=START, seed=1)
             if one.start_ns < START + 85 * SECOND]  # fmt: skip
    kinds = [one.kind for one in begun]
    assert kinds == ["link-cut", "brute-force", "volumetric-attack", "flash-crowd", "port-scan",
                     "exporter-down"]  # fmt: skip
    for one in begun:
        assert one.entity in played_line(one)


def test_entities_and_what_they_affect_exist() -> None:
    names = {router.name for router in NETWORK.file.router}
    names |= {link.name for link in NETWORK.file.link}
    names |= {f"{face.router}:{face.name}" for face in NETWORK.file.interface}
    names |= {face.customer for face in NETWORK.file.interface if face.customer}
    names |= {prefix.prefix for prefix in NETWORK.file.prefix}
    # Of polled series: the device, then the interface or the disk.
    names |= {f"{face.router} {face.name}" for face in NETWORK.file.interface if face.link}
    names |= {f"{router} {DISK}" for router in NETWORK.names}
    for seed in range(10):
        for one in drawn(NETWORK, start_ns=START, seed=seed, days=1):
            host = str(one.entity).rpartition(".")[0] + ".0/24"  # some faults are of a host
            assert one.entity in names or host in names
            assert set(one.affects) <= names


def test_truth_holds_faults_that_began_and_no_crowds(tmp_path: Path) -> None:
    made = scripted(NETWORK, start_ns=START, seed=1)
    path = tmp_path / "truth.jsonl"
    write_truth(made, path, start_ns=START, end_ns=START + 61 * SECOND)
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert [row["kind"] for row in rows] == [
        "link-cut",
        "brute-force",
        "volumetric-attack",
        "port-scan",
    ]
    assert all(row["start_ns"] < row["end_ns"] for row in rows)
    assert rows[0]["affects"][:2] == rows[0]["entity"].split("-")
