"""Alarm files: grouping without over-merging, the learned graph, files of any sort, the command."""

import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from alerting.config import AlertingSettings
from alerting.incidents.causality import learn
from correlator.tables.network_map import FileNetworkMap
from telemetry.errors import ConfigError
from tests.support.faults import (
    leaf_and_spine,
    mesh,
    overlapping_faults,
    ring_of_rings,
    tree,
    undecidable,
)
from tocsin.cli.correlate import correlate as command
from tocsin.files.alarms import Event, read_alarms
from tocsin.files.times import START_NS
from tocsin.files.topologies import network_of, read_topology
from tocsin.reports.correlation import causes, correlate, score

# Name, has a topology, F1 of THP.
SETS = (
    ("18V_55N_Wireless", False, 0.577),
    ("24V_439N_Microwave", True, 0.372),
)


@pytest.fixture(scope="module")
def sets(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the public alarm sets, unpacked."""
    folder = tmp_path_factory.mktemp("alarms")
    for name, _, _ in SETS:
        with tarfile.open(shared / "ext" / "alarms" / f"{name}.tar.gz") as archive:
            archive.extractall(folder, filter="data")
    return folder


NETWORKS = {
    "rings-630": ring_of_rings(30, 20),
    "rings-132": ring_of_rings(6, 21),
    "mesh-132": mesh(132, 4, 1),
    "dense-mesh-132": mesh(132, 8, 2),
    "tree-132": tree(132, 3),
    "wide-tree-300": tree(300, 8),
}
# One fault every 20 s or each minute, somewhere; a neighbour fails by chance within minutes.
CASES = [(name, gap, seed) for name in NETWORKS for gap in (20.0, 60.0) for seed in (11, 12, 13)]


@pytest.mark.parametrize("name", NETWORKS)
def test_overlapping_faults_are_neither_merged_nor_torn(name: str, deep: bool) -> None:
    pairs = NETWORKS[name]
    for of, gap, seed in CASES if deep else [(name, 20.0, 11)]:
        if of != name:
            continue
        events = overlapping_faults(pairs, faults=150, mean_gap_seconds=gap, seed=seed)
        report = correlate(events, network_of(pairs, []))
        assert report.judged == report.alarms
        assert report.over_merge <= 0.05
        assert report.torn <= 0.05
        assert report.largest <= 60


def test_where_a_fabric_says_too_little_is_where_most_is_merged_wrongly() -> None:
    """Two clocks lost 6 s apart are felt alike on every leaf: nobody could tell most of what is wrong there."""
    pairs = leaf_and_spine(8, 124)
    events = overlapping_faults(pairs, faults=150, mean_gap_seconds=20, seed=2503)
    report = correlate(events, network_of(pairs, []))
    assert 0.04 < undecidable(pairs, events, 20.0) < report.over_merge < 0.1


@pytest.mark.parametrize("seed", [2602, 2609])
def test_faults_of_different_kinds_on_two_spines_are_two(seed: int) -> None:
    """A kind that is new, seconds after another one on another spine: its symptoms were taken for the other's."""
    pairs = leaf_and_spine(8, 124)
    events = overlapping_faults(pairs, faults=150, mean_gap_seconds=20, seed=seed)
    report = correlate(events, network_of(pairs, []))
    assert undecidable(pairs, events, 20.0) < 0.02
    assert report.over_merge <= 0.05


@pytest.mark.parametrize("name", ["dense-mesh-132", "fabric-132"])
def test_what_is_felt_at_ports_is_of_the_fault_at_their_far_end(name: str) -> None:
    """In a fabric every fault is felt on every spine: only the port says whose it is."""
    pairs = NETWORKS.get(name) or leaf_and_spine(8, 124)
    events = overlapping_faults(pairs, faults=60, mean_gap_seconds=20, seed=14, at_ports=True)
    report = correlate(events, network_of(pairs, []))
    assert report.judged == report.alarms
    assert report.over_merge <= 0.05
    assert report.torn <= 0.05


def test_slow_symptoms_are_still_those_of_their_fault() -> None:
    pairs = NETWORKS["rings-132"]
    events = overlapping_faults(pairs, faults=150, mean_gap_seconds=60, seed=5, slowness=3.0)
    report = correlate(events, network_of(pairs, []))
    assert report.over_merge <= 0.05
    assert report.torn <= 0.05


def test_an_incident_outgrows_its_limit_only_where_its_root_explains_it() -> None:
    """A spine that loses power is felt by a hundred leaves; two of them are still two."""
    pairs = leaf_and_spine(8, 100)
    events = overlapping_faults(pairs, faults=100, mean_gap_seconds=60, seed=6)
    report = correlate(events, network_of(pairs, []))
    assert report.over_merge <= 0.05
    felt = {f"leaf{i}" for i in range(100)}
    large = [one for one in report.incidents if one["alarms_count"] > 60]
    assert large
    assert all(one["entity"].startswith("spine") or one["entity"] in felt for one in large)


@pytest.mark.parametrize(("name", "topology", "published"), SETS)
def test_the_learned_graph_beats_what_was_published(
    sets: Path, name: str, topology: bool, published: float
) -> None:
    events = read_alarms(sets / name / "Alarm.csv").events
    network = read_topology(sets / name / "Topology.npy") if topology else FileNetworkMap()
    found = score(causes(events, network), events, sets / name / "DAG.npy")
    assert found["f1"] > published
    assert found["f1"] > found["f1_of_all_pairs"]


@pytest.mark.parametrize(("name", "topology", "published"), SETS)
def test_public_sets_are_compressed_without_giant_incidents(
    sets: Path, name: str, topology: bool, published: float, deep: bool
) -> None:
    assert published
    events = read_alarms(sets / name / "Alarm.csv").events
    if not deep:
        events = events[:12_000]
    network = read_topology(sets / name / "Topology.npy") if topology else FileNetworkMap()
    report = correlate(events, network)
    assert report.largest <= 60
    assert report.compression >= (0.95 if deep else 0.92)  # of 8 months, of 2


def test_a_cause_is_told_from_its_effect_and_from_chance() -> None:
    random = np.random.default_rng(2)
    kinds: list[str] = []
    nodes: list[str] = []
    times: list[int] = []

    def add(kind: str, node: str, at: float) -> None:
        kinds.append(kind)
        nodes.append(node)
        times.append(round(at * 1e9))

    for _ in range(400):
        at, node = float(random.uniform(0, 3e6)), f"n{random.integers(20)}"
        add("los", node, at)
        if random.random() < 0.8:
            add("bgp", node, at + float(random.uniform(1, 60)))
    for _ in range(400):
        add("door", f"n{random.integers(20)}", float(random.uniform(0, 3e6)))
    edges = [(edge.cause, edge.effect) for edge in learn(kinds, nodes, times)]
    assert edges == [("los", "bgp")]


def test_effects_on_neighbours_are_seen_where_the_topology_is_known() -> None:
    random = np.random.default_rng(3)
    kinds, nodes, times = [], [], []
    for _ in range(300):
        at, node = float(random.uniform(0, 3e6)), int(random.integers(20))
        for kind, where, later in (("los", node, 0.0), ("rdi", node ^ 1, 5.0)):
            kinds.append(kind)
            nodes.append(f"n{where}")
            times.append(round((at + later) * 1e9))
    near = {f"n{i}": [f"n{i ^ 1}"] for i in range(20)}
    assert learn(kinds, nodes, times) == []
    assert [(e.cause, e.effect) for e in learn(kinds, nodes, times, near)] == [("los", "rdi")]


def test_an_alarm_that_is_back_under_another_fault_is_judged_by_each_raise() -> None:
    """Twenty faults of two alarms each, on the same two nodes in turn, hours apart: none is merged or torn."""
    events = [
        Event(START_NS + (n * 36_000 + after + (300 if severity == "cleared" else 0)) * 10**9, kind, f"n{n % 2}",
              severity, "", f"fault{n}")
        for n in range(20) for severity in ("major", "cleared") for kind, after in (("fan", 0), ("door", 5))
    ]  # fmt: skip
    settings = AlertingSettings(repeat_hours=1.0)
    report = correlate(
        sorted(events, key=lambda e: e.time_ns),
        network_of([("n0", "x"), ("n1", "x")], []),
        settings,
    )
    assert (report.judged, report.mixed, report.strays) == (40, 0, 0)


def write(path: Path, lines: Sequence[str]) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def test_files_of_several_sorts_say_the_same(tmp_path: Path) -> None:
    table = write(tmp_path / "a.csv", ["kind,entity,start,end", "los,a,10,20", "bgp,b,12,12"])
    lines = write(
        tmp_path / "a.jsonl",
        [
            json.dumps({"type": "los", "node": "a", "time": 10}),
            json.dumps({"type": "bgp", "node": "b", "time": 12}),
            json.dumps({"type": "bgp", "node": "b", "time": 12, "severity": "cleared"}),
            json.dumps({"type": "los", "node": "a", "time": 20, "state": "cleared"}),
        ],
    )
    assert read_alarms(table) == read_alarms(lines)
    assert [e.severity for e in read_alarms(table).events] == [
        "major",
        "major",
        "cleared",
        "cleared",
    ]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["device,start", "a,1"], "no column for kind"),
        (["kind,entity,start", "los,a,soon"], "row 2"),
    ],
)
def test_a_file_that_cannot_be_is_refused_in_one_sentence(
    tmp_path: Path, lines: list[str], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        read_alarms(write(tmp_path / "a.csv", lines))


def test_topologies_of_several_sorts(tmp_path: Path, shared: Path) -> None:
    pairs = read_topology(write(tmp_path / "t.csv", ["a,b", "b,c"]))
    assert [link.name for link in pairs.links_of("b")] == ["a-b", "b-c"]
    np.save(tmp_path / "t.npy", np.array([[0, 1], [1, 0]]))
    assert read_topology(tmp_path / "t.npy").routers() == ("0", "1")
    zoo = read_topology(shared / "ext" / "topology" / "zoo" / "Geant2012.graphml")
    assert len(zoo.routers()) == 40


def test_the_command_says_what_it_found(tmp_path: Path) -> None:
    lines = [f"los,n{i % 3},{i * 5000},{i * 5000 + 60}" for i in range(30)]
    lines += [f"bgp,n{i % 3},{i * 5000 + 10},{i * 5000 + 70}" for i in range(30)]
    alarms = write(tmp_path / "a.csv", ["kind,entity,start,end", *lines])
    said = CliRunner().invoke(command, ["--alarms", str(alarms)])
    assert said.exit_code == 0, said.output
    assert "60 raises of 6 alarms" in said.output
    assert "los -> bgp" in said.output
    assert "2023-11-14 22:13Z     2 alarms  major" in said.output
    found = json.loads(CliRunner().invoke(command, ["--alarms", str(alarms), "--json"]).output)
    assert found["largest"] == 2
    assert [edge[:2] for edge in found["edges"]] == [["los", "bgp"]]
