"""A live node's alert, seen again from its case file, traced step by step, also anonymised."""

import contextlib
import json
import re
import socket
import sqlite3
import zipfile
from pathlib import Path
from typing import Any

import click.testing
import pytest

from alerting.words.alert import Alert, canonical
from tests.scenario.test_crash import committed
from tests.support import processes
from tests.support.live_node import CLOCK, LiveNode, feed, write_config
from tocsin.cases.anonymise import Mapper
from tocsin.cli.capture import capture
from tocsin.cli.doctor import doctor
from tocsin.cli.replay import replay
from tocsin.cli.trace import trace
from tocsin.demo.network import load_demo_network
from tocsin.demo.settings import free_port
from tocsin.demo.traffic import Fault

SECOND = 1_000_000_000
SECRET = "a secret of this test"


class Lived:
    """What one life of a node left behind."""

    def __init__(self, folder: Path) -> None:
        ports = (free_port(43055, socket.SOCK_DGRAM), free_port(47343, socket.SOCK_DGRAM))
        pages = free_port(48420, socket.SOCK_STREAM)  # the gate's, which serves them on a sensor
        config = write_config(
            folder, port=ports[0], sflow_port=ports[1], checkpoint_seconds=11.0,
            extra=f'[api]\nmetrics_listen = "127.0.0.1:{pages}"\n',
        )  # fmt: skip
        self.state = folder / "state"
        node = LiveNode(config, self.state).start()
        gate = LiveNode(config, self.state, role="gate").start()
        node.ask()
        start_ns = CLOCK.now_ns()
        network = load_demo_network()
        self.prefix = network.prefix_text[31]
        faults = (
            Fault("link-cut", network.links_used()[0], start_ns + 11 * SECOND, start_ns + 60 * SECOND),
            Fault(
                "volumetric-attack", self.prefix, start_ns + 30 * SECOND, start_ns + 60 * SECOND, (),
                {"vector": "ntp-amplification", "flows_per_second": 250.0, "host": 9},
            ),
        )  # fmt: skip
        try:
            with processes.beside(feed, faults, ports):
                CLOCK.sleep(42.0)
                for _ in range(60):  # a gate on a busy machine comes up late
                    if (folder / "alerts.jsonl").exists():
                        break
                    CLOCK.sleep(0.5)
                CLOCK.sleep(1.0)  # and tells the node what became of its deliveries
                self.doctor_while_it_ran = run(doctor, "--state", self.state)
                for _ in range(60):  # the gate may have come late
                    if not self.waiting():
                        break
                    CLOCK.sleep(0.5)
        finally:
            gate.stop()
            node.stop()
        self.alerts, _ = committed(self.state)

    def waiting(self) -> int:
        """How many deliveries no sink has taken yet."""
        with contextlib.closing(sqlite3.connect(self.state / "node.sqlite")) as db:
            found = db.execute("select count(*) from delivery where state = 'waiting'").fetchone()
        return int(found[0])

    def first(self, kind: str) -> dict[str, Any]:
        """The first alert of a kind, as sent."""
        found = (json.loads(alert) for alert in self.alerts)
        return next(
            alert for alert in found if alert["kind"] == kind and alert["state"] == "raised"
        )


def run(command: click.Command, *arguments: object) -> click.testing.Result:
    return click.testing.CliRunner().invoke(command, [str(one) for one in arguments])


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Lived:
    return Lived(tmp_path_factory.mktemp("lived"))


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


@pytest.mark.parametrize("kind", ["link-cut", "volumetric-attack"])
def test_a_case_gives_the_same_alert(lived: Lived, tmp_path: Path, kind: str) -> None:
    alert, case = lived.first(kind), tmp_path / "case.tocsin"
    saved = run(capture, "--around", alert["id"], "--output", case, "--state", lived.state)
    assert saved.exit_code == 0, saved.output
    assert f"see it again with: tocsin replay {case}" in saved.output
    again = run(replay, case)
    assert again.exit_code == 0, again.output
    replayed = lines(again.output)
    assert alert in replayed, "byte for byte: same fields, same ids, same times"
    until = alert["changed_ns"] + 10 * SECOND
    assert all(one["changed_ns"] <= until for one in replayed)
    with zipfile.ZipFile(case) as archive:
        manifest = json.loads(archive.read("manifest.json"))
        names = set(archive.namelist())
        config = json.loads(archive.read("config.json"))
    assert manifest["datagrams"] > 100
    assert manifest["whole"], "nothing between the checkpoint and the moment is missing"
    assert {"datagrams.pcapng", "network.toml", "config.json"} <= names
    carried = any(name.startswith("checkpoint/") for name in names)
    assert carried == (manifest["first_sequence"] > 1), "from a checkpoint, or from the beginning"
    assert any(name.startswith("templates/") for name in names)
    assert config["alerting"]["sinks"] != {"file": {}}
    assert "alerts.jsonl" not in json.dumps(config), "sinks stay at home"


def test_a_case_around_a_time_holds_what_was_raised_then(lived: Lived, tmp_path: Path) -> None:
    alert, case = lived.first("link-cut"), tmp_path / "case.tocsin"
    seconds = (CLOCK.now_ns() - alert["changed_ns"]) / 1e9
    saved = run(capture, "--around", f"{seconds:.3f}s", "--output", case, "--state", lived.state)
    assert saved.exit_code == 0, saved.output
    assert alert in lines(run(replay, case).output)


@pytest.mark.parametrize("kind", ["link-cut", "volumetric-attack"])
def test_an_anonymised_case_gives_the_same_alert_up_to_addresses(
    lived: Lived, tmp_path: Path, kind: str
) -> None:
    alert, case = lived.first(kind), tmp_path / "case.tocsin"
    flags = ("--output", case, "--state", lived.state, "--anonymise", SECRET)
    saved = run(capture, "--around", alert["id"], *flags)
    assert saved.exit_code == 0, saved.output
    assert "datagrams are left out" in saved.output
    mapper = Mapper(SECRET)
    wanted = mapper.value(alert)
    again = run(replay, case)
    assert again.exit_code == 0, again.output
    same = [one for one in lines(again.output) if one["kind"] == kind and one["state"] == "raised"]
    # An id is a hash of the entity, which may be an address; so is that of its incident.
    for one in (wanted, *same):
        del one["id"], one["change"], one["incident"]
    at = wanted["changed_ns"]
    assert [one for one in same if one["changed_ns"] == at] == [wanted]
    # No true address is left in any entry: of senders, of customers, of the attacked.
    with zipfile.ZipFile(case) as archive:
        data = b"".join(archive.read(name) for name in archive.namelist())
        assert "datagrams.pcapng" not in archive.namelist()
    network = load_demo_network()
    true = {text.split("/")[0] for text in network.prefix_text}
    true -= {mapper.text(text).split("/")[0] for text in true}
    assert true
    assert [text for text in sorted(true) if text.encode() in data] == []
    assert [address for address in network.addresses if address.encode() in data] == []


def test_prefixes_stay_prefixes_and_version_stays() -> None:
    mapper = Mapper(SECRET)
    one, two, other = (mapper.text(a) for a in ("100.80.33.7", "100.80.33.200", "100.80.34.7"))
    assert one.split(".")[:3] == two.split(".")[:3] != other.split(".")[:3]
    assert mapper.text("100.80.33.0/24").rsplit(".", 1)[0] == one.rsplit(".", 1)[0]
    assert mapper.text("100.80.33.0/24").endswith(".0/24")
    six = mapper.text("2001:db8:1::7")
    assert ":" in six
    assert mapper.text("2001:db8:1::/48").endswith("::/48")
    assert Mapper("another").text("100.80.33.7") != one
    for text in (
        "10:43:12",
        "2026-11-24T10:00:00Z",
        "ams1:et-0/0/3",
        "udp/123",
        "1.2.3",
        "v1.2.3.4.5",
    ):
        assert mapper.text(text) == text


def test_trace_shows_every_step(lived: Lived) -> None:
    alert = lived.first("link-cut")
    shown = run(trace, alert["id"], "--state", lived.state)
    assert shown.exit_code == 0, shown.output
    steps = lines(shown.output)
    kinds = [step["step"] for step in steps]
    order = ["datagrams", "join", "frame", "suppression", "alarm", "delivery"]
    assert [kinds.index(kind) for kind in order] == sorted(kinds.index(kind) for kind in order)
    datagrams = [step for step in steps if step["step"] == "datagrams"]
    assert all(step["datagrams"] > 0 and step["octets"] > 0 for step in datagrams)
    joins = [step for step in steps if step["step"] == "join"]
    assert alert["entity"] in {step.get("link") for step in joins}
    assert all(step["age_seconds"] > 0 for step in joins)
    findings = [step for step in steps if step["step"] == "finding"]
    assert findings
    assert all(0.0 <= step["p_value"] <= 1.0 for step in findings)
    assert {step["disposition"] for step in findings} <= {"alert", "hard", "digest"}
    scores = [step for step in steps if step["step"] == "scores"]
    assert any(name.startswith("p_value") or name.endswith("p_value") for name in scores[0])
    assert {step["series"] for step in scores} <= set(alert["explain"]["series"])
    (record, *_) = (step["record"] for step in steps if step["step"] == "alarm")
    assert record["id"] == alert["id"]
    assert canonical_of(record) in lived.alerts
    delivery = next(step for step in steps if step["step"] == "delivery")
    assert (delivery["sink"], delivery["state"]) == ("file", "sent")


def canonical_of(record: dict[str, Any]) -> bytes:
    return canonical(Alert(**record))


def test_trace_lists_alerts_and_refuses_what_is_none(lived: Lived, tmp_path: Path) -> None:
    listed = run(trace, "--list", "--state", lived.state)
    assert re.search(r"^[0-9a-f]{16}  (raised|cleared) +\w+ +link ", listed.output, re.MULTILINE)
    from telemetry.errors import ConfigError

    with pytest.raises(ConfigError, match="no alert 'abcdef123'"):
        raise run(trace, "abcdef123", "--state", lived.state).exception or AssertionError
    with pytest.raises(ConfigError, match="--state names the folder"):
        raise run(trace, "abcdef123", "--state", tmp_path).exception or AssertionError


def test_doctor_of_a_running_node(lived: Lived) -> None:
    said = lived.doctor_while_it_ran.output
    assert re.search(r"^ok   node \S+: \d+ series, \d+ exporters$", said, re.MULTILINE)
    assert re.search(r"flow on udp://127\.0\.0\.1:\d+: \d+ datagrams", said)
