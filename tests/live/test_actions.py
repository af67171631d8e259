"""Actions on real routers: a blackhole route from FRR, a FlowSpec rule from ExaBGP, answers over SSH."""

import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from alerting.causes.flowspec import ICMP, TCP, Filter
from alerting.config import SinkSettings
from alerting.sinks import RefusedError, make_sink
from alerting.words.alert import Alert
from telemetry.errors import TransientError
from tests.support.flow_filter import read_filters
from tests.support.routers import FRR, ExaBgp, Frr, SshServer, two_namespaces, until
from tocsin.testing import checks_sink
from tocsin.testing.alarms import AlarmWorld, flood
from tocsin.testing.checks_sink import NOW_NS, parcel

pytestmark = pytest.mark.live
ALLOWED = ("198.51.100.0/24",)

SENDER = """
route-map blackhole permit 10
 match tag 666
 set community blackhole
exit
router bgp 65001
 no bgp ebgp-requires-policy
 neighbor 10.99.0.2 remote-as 65002
 neighbor 10.99.0.2 timers 1 3
 neighbor 10.99.0.2 timers connect 1
 address-family ipv4 unicast
  redistribute static route-map blackhole
 exit-address-family
exit
"""
RECEIVER = """
router bgp 65002
 no bgp ebgp-requires-policy
 neighbor 10.99.0.1 remote-as 65001
 neighbor 10.99.0.1 timers 1 3
 neighbor 10.99.0.1 timers connect 1
 address-family ipv4 flowspec
  neighbor 10.99.0.1 activate
 exit-address-family
exit
"""
EXABGP = """
neighbor 10.99.0.2 {
    router-id 10.99.0.1;
    local-address 10.99.0.1;
    local-as 65001;
    peer-as 65002;
    family { ipv4 flow; }
}
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the user frr can enter; the sockets in it need a short path."""
    made = Path(tempfile.mkdtemp(prefix="ts-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def space(needs: Callable[..., None]) -> Iterator[tuple[str, str]]:
    needs("ip", root=True)
    with two_namespaces() as names:
        yield names


def attack() -> tuple[Alert, Alert]:
    """The raise and the clear of a DNS amplification on 198.51.100.7, as the alerting stage makes them."""
    world = AlarmWorld()
    series = world.series("destination_prefix", destination_prefix="198.51.100.0/24")
    made: list[Alert] = []
    for tick in range(8):
        rows = []
        if tick < 3:
            world.samples[series] = flood()
            rows = [world.anomaly(series, "attack", detail={"share": 0.9})]
        made += [a for a in world.tick(rows) if a.kind == "volumetric-attack"]
    raised = next(a for a in made if a.state == "raised")
    cleared = next(a for a in made if a.state == "cleared")
    return raised, cleared


def action(folder: Path, run: tuple[str, ...], undo: tuple[str, ...], **options: Any) -> Any:
    return make_sink(
        SinkSettings(
            kind="command", path=str(folder / "in-force.json"), timeout_seconds=10.0,
            options={"run": run, "undo": undo, "allowed": ALLOWED, **options},
        )
    )  # fmt: skip


def established(router: Frr, command: str) -> bool:
    return '"state":"Established"' in router.vtysh(command).replace(" ", "")


def routers(space: tuple[str, str], folder: Path) -> tuple[Frr, Frr]:
    return Frr(space[0], folder / "a", SENDER), Frr(space[1], folder / "b", RECEIVER)


def test_a_blackhole_route_is_announced_and_withdrawn_when_the_attack_is_over(
    space: tuple[str, str], folder: Path, needs: Callable[..., None]
) -> None:
    """RFC 7999: the neighbour sees 198.51.100.7/32 with the community BLACKHOLE, 65535:666."""
    needs("vtysh", str(FRR / "bgpd"))
    ours, theirs = routers(space, folder)
    try:
        until(lambda: established(ours, "show bgp summary json"))
        configure = (*ours.words, "-c", "configure terminal", "-c")
        raised, cleared = attack()
        route = "ip route ${host}/32 blackhole tag 666"
        sink = action(folder, (*configure, route), (*configure, f"no {route}"))

        def seen() -> Any:
            return json.loads(theirs.vtysh("show bgp ipv4 unicast 198.51.100.7/32 json") or "{}")

        assert not seen()
        assert sink.send([parcel(raised)], now_ns=NOW_NS)
        path = until(lambda: seen().get("paths"))[0]
        assert "blackhole" in path["community"]["string"].split()
        assert sink.send([parcel(raised, 2)], now_ns=NOW_NS)  # at least once: nothing changes
        # Another gate process undoes what this one did, from the record.
        again = action(folder, (*configure, route), (*configure, f"no {route}"))
        assert again.send([parcel(cleared)], now_ns=NOW_NS)
        until(lambda: not seen())
        assert again.send([parcel(cleared, 2)], now_ns=NOW_NS) == "nothing is in force"
    finally:
        ours.stop()
        theirs.stop()


def test_a_flowspec_rule_from_exabgp_is_seen_in_frr_and_withdrawn(
    space: tuple[str, str], folder: Path, needs: Callable[..., None]
) -> None:
    needs("vtysh", str(FRR / "bgpd"), "sh")
    theirs = Frr(space[1], folder / "b", RECEIVER)
    exabgp = ExaBgp(space[0], folder / "x", EXABGP)
    try:
        until(lambda: established(theirs, "show bgp ipv4 flowspec summary json"))
        match = "destination ${host}/32; protocol udp; source-port =${source_port};"
        rule = f"flow route {{ match {{ {match} }} then {{ discard; }} }}"
        write = ("sh", "-c", 'printf "%s\\n" "$1" >"$0"', str(exabgp.pipe))
        raised, cleared = attack()
        sink = action(folder, (*write, f"announce {rule}"), (*write, f"withdraw {rule}"))
        assert sink.send([parcel(raised)], now_ns=NOW_NS)
        shown = until(
            lambda: (
                "198.51.100.7" in (text := theirs.vtysh("show bgp ipv4 flowspec detail")) and text
            )
        )
        assert "53" in shown
        assert sink.send([parcel(cleared)], now_ns=NOW_NS)
        until(lambda: "198.51.100.7" not in theirs.vtysh("show bgp ipv4 flowspec detail"))
    finally:
        exabgp.stop()
        theirs.stop()


def test_the_rules_that_an_alert_proposes_are_taken_by_exabgp_and_understood_by_frr(
    space: tuple[str, str], folder: Path, needs: Callable[..., None]
) -> None:
    needs("vtysh", str(FRR / "bgpd"), "sh")
    rules = [
        read_filters(attack()[0].explain["do"])[0].text,
        str(Filter(source="203.0.113.9", destination="198.51.100.8", protocol=TCP, destination_ports=(22, 23),
                   opening=True)),
        str(Filter(destination="198.51.100.9", protocol=ICMP, icmp_type=8, limit=125_000)),
    ]  # fmt: skip
    theirs = Frr(space[1], folder / "b", RECEIVER)
    exabgp = ExaBgp(space[0], folder / "x", EXABGP)
    try:
        until(lambda: established(theirs, "show bgp ipv4 flowspec summary json"))
        for rule in rules:
            exabgp.pipe.write_text(f"announce {rule}\n")

        def shown() -> str:
            text = theirs.vtysh("show bgp ipv4 flowspec detail")
            return text if all(f"198.51.100.{n}" in text for n in (7, 8, 9)) else ""

        found = " ".join(until(shown).split())
        assert "IP Protocol = 17 Source Port = 53 Packet Length >= 1050 FS:rate 0.0" in found
        assert "Destination Port = 22 , = 23 TCP Flags ∋ 2,&∋ ! 16 FS:rate 0.0" in found
        assert "IP Protocol = 1 ICMP Type = 8 FS:rate 125000.0" in found
    finally:
        exabgp.stop()
        theirs.stop()


def test_a_diagnostics_bundle_comes_over_ssh(
    space: tuple[str, str], folder: Path, needs: Callable[..., None]
) -> None:
    needs("ssh", "ssh-keygen", "/usr/sbin/sshd")
    server = SshServer(space[1], "10.99.0.2", folder / "ssh")
    world = AlarmWorld()
    (alert,) = world.tick([world.silence(world.series("exporter", exporter="127.1.0.1"))])
    assert alert.entity == "ams1"
    bundles = folder / "bundles"
    # The client runs where the router can be reached, as the gate would.
    wrap = folder / "bin"
    wrap.mkdir()
    (wrap / "ssh").write_text(
        f'#!/bin/sh\nexec ip netns exec {space[0]} {shutil.which("ssh")} "$@"\n'
    )
    (wrap / "ssh").chmod(0o755)
    settings = SinkSettings(
        kind="diagnostics", path=str(bundles), timeout_seconds=8.0,
        options={
            "commands": ["uname -s; echo 'a b'", "cat /no/such/file", "echo last"], "login": "root",
            "key_file": str(server.key), "known_hosts": str(server.known), "hosts": {"ams1": "10.99.0.2"},
        },
    )  # fmt: skip
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{wrap}:{before}"
    try:
        sink = make_sink(settings)
        said = until(lambda: _sent(sink, alert))
        assert "2 answers of ams1" in said
        (path,) = bundles.iterdir()
        with zipfile.ZipFile(path) as file:
            assert file.read("ams1-01.txt").decode().splitlines()[2:] == ["Linux", "a b"]
            assert json.loads(file.read("alert.json"))["id"] == alert.id
            manifest = json.loads(file.read("manifest.json"))
        assert manifest["hosts"] == {"ams1": "10.99.0.2"}
        assert "No such file" in manifest["failed"][0]
        assert sink.send([parcel(alert, 2)], now_ns=NOW_NS).startswith("is there")
        for check in checks_sink.CHECKS:
            check(lambda: make_sink(_exam(settings)))
    finally:
        os.environ["PATH"] = before
        server.stop()


def _sent(sink: Any, alert: Alert) -> str:
    try:
        return str(sink.send([parcel(alert)], now_ns=NOW_NS))
    except TransientError:  # the server is still coming up
        return ""


def _exam(settings: SinkSettings) -> SinkSettings:
    hosts = {f"192.0.2.{i}": "10.99.0.2" for i in (1, 2)}
    return msgspec.structs.replace(settings, options={**settings.options, "hosts": hosts})


def test_an_unknown_host_key_is_refused(space: tuple[str, str], folder: Path, needs: Any) -> None:
    needs("ssh", "ssh-keygen", "/usr/sbin/sshd")
    known = folder / "none"
    known.write_text("")
    settings = SinkSettings(
        kind="diagnostics", path=str(folder / "b"), timeout_seconds=3.0,
        options={"commands": ["true"], "login": "root", "key_file": "/dev/null", "known_hosts": str(known),
                 "hosts": {"ams1": "10.99.0.2"}},
    )  # fmt: skip
    world = AlarmWorld()
    (alert,) = world.tick([world.silence(world.series("exporter", exporter="127.1.0.1"))])
    with pytest.raises(TransientError):
        make_sink(settings).send([parcel(alert)], now_ns=NOW_NS)
    bad = {**settings.options, "hosts": {"ams1": "-oProxyCommand=touch /tmp/x"}}
    sink = make_sink(msgspec.structs.replace(settings, options=bad))
    with pytest.raises(RefusedError, match="no host to ask"):
        sink.send([parcel(alert)], now_ns=NOW_NS)
