"""Failed logins in logs: counted by source, named once, with the hosts they were tried at."""

import pytest

from alerting.causes.failed_logins import LINES_MAX, PAIRS_MAX, source_of
from alerting.records.alarm import alarm_id
from runtime.checkpoint import Snapshot
from telemetry.batch import Batch, batch_from_rows
from telemetry.schemas import LOG
from tests.support.syslog_messages import block, make_syslog
from tocsin.testing.alarms import AlarmWorld

SSHD = "<38>Sep 21 14:13:20 {host} sshd[{n}]: Failed password for invalid user u{n} from {source} port 22 ssh2"


def logs(*lines: str) -> list[Batch]:
    """Return the log batches that these lines are decoded to."""
    decoder, _ = make_syslog("udp://[::]:1")
    return [b for b in decoder.decode(block(*(line.encode() for line in lines))) if b.schema is LOG]


def hear(world: AlarmWorld, *batches: Batch) -> list[tuple[str, str, str]]:
    """Play a tick of flows with these log lines before it; return (state, kind, entity)."""
    for batch in batches:
        world.stage.process(batch)
    frame = world.frame({world.interface("ams1", 1): 50})
    return [(a.state, a.kind, a.entity) for a in world.tick(frames=[frame])]


@pytest.mark.parametrize(
    ("message", "source"),
    [
        ("Failed password for root from 192.0.2.7 port 51022 ssh2", "192.0.2.7"),
        ("Login failed [user: a] [Source: 198.51.100.9] [localport: 22] [Reason: x] at 14:13:20",
         "198.51.100.9"),
        ("Login failed for user 'x' from host '2001:db8::9'", "2001:db8::9"),
        ("14:13:20 authentication failure; logname= rhost=203.0.113.5 user=root", "203.0.113.5"),
        ("Login incorrect for 192.0.2.1, version 10.2.3", "192.0.2.1"),
        ("authentication failure on tty1", ""),
        ("failed from 999.1.1.1", ""),
        ("failed from 192.0.2.7.1", ""),
        ("Failed password for root from ::ffff:192.0.2.7 port 51022 ssh2", "192.0.2.7"),
        ("Failed password for root from 0:0:0:0:0:FFFF:C000:207 port 51022 ssh2", "192.0.2.7"),
        ("Bad password attempt for 'root' from 192.0.2.7:51022", "192.0.2.7"),
        ("Bad password attempt for 'root' from ::ffff:192.0.2.7:51022", "192.0.2.7"),
        ("Bad password attempt for 'root' from [2001:DB8:0::7]:51022.", "2001:db8::7"),
        ("authentication failure; rhost=[::ffff:192.0.2.7]:22 user=root", "192.0.2.7"),
        ("Login failed [user: a] [Source: fe80::7%eth0] [localport: 22]", "fe80::7"),
        ("Login incorrect for 192.0.2.7.", "192.0.2.7"),
        ("Failed login from 2001:db8::7: no such user", "2001:db8::7"),
        ("Failed login from 2001:db8:0:0:0:0:0:7: no such user", "2001:db8::7"),
        ("connect from 2001:db8::7:ssh refused", "2001:db8::7"),
        ("connect from 2001:db8::7:ftp refused", "2001:db8::7"),
        ("Failed login from 192.0.2.7: no such user", "192.0.2.7"),
        ("connect from 192.0.2.7:ssh refused", "192.0.2.7"),
        ("connect from ::ffff:192.0.2.7:ssh refused", "192.0.2.7"),
        ("Failed login from ::ffff:192.0.2.7: no such user", "192.0.2.7"),
        ("failed from 192.0.2.7:22:33", ""),
        ("at 14:13:20: authentication failure on tty1", ""),
    ],
)  # fmt: skip
def test_the_source_of_a_failed_login(message: str, source: str) -> None:
    assert source_of(message) == source


def test_many_failed_logins_from_one_source_are_one_alarm_that_names_source_and_hosts() -> None:
    world = AlarmWorld()
    lines = [SSHD.format(host=f"h{n % 2}", n=n, source="203.0.113.5") for n in range(40)]
    assert hear(world, *logs(*lines[:20])) == []
    assert hear(world, *logs(*lines[20:])) == [("raised", "brute-force", "203.0.113.5")]
    alarm = next(iter(world.stage._own.alarms.values()))
    assert "from 203.0.113.5" in alarm.title
    assert {"h0", "h1"} <= set(alarm.explain["touches"])
    assert "source 203.0.113.5/32" in alarm.explain["do"]
    assert alarm.explain["disposition"] == "hard"


def test_one_source_in_all_its_forms_is_one_alarm() -> None:
    """Sockets of both kinds log IPv4 as IPv6, dropbear with a port: each form alone is below the least."""
    world = AlarmWorld()
    forms = ("203.0.113.5", "::ffff:203.0.113.5", "203.0.113.5:51022", "[::ffff:203.0.113.5]:22")
    lines = [SSHD.format(host="h0", n=n, source=forms[n % 4]) for n in range(60)]
    assert hear(world, *logs(*lines)) == [("raised", "brute-force", "203.0.113.5")]
    alarm = next(iter(world.stage._own.alarms.values()))
    assert "source 203.0.113.5/32" in alarm.explain["do"]


@pytest.mark.parametrize("source", ["127.0.0.1", "::1", "fe80::1", "224.0.0.5", "0.0.0.0"])
def test_a_source_that_is_no_host_of_the_network_gets_no_rule(source: str) -> None:
    world = AlarmWorld()
    hear(world, *logs(*(SSHD.format(host="h0", n=n, source=source) for n in range(40))))
    (alarm,) = world.stage._own.alarms.values()
    assert f"no FlowSpec rule for {source}: it is no address of one host" in alarm.explain["do"]
    assert "flow route" not in alarm.explain["do"]


def test_the_rule_names_the_port_of_the_service_that_tells_it() -> None:
    world = AlarmWorld()
    console = "<38>Sep 21 14:13:20 h0 login[{n}]: Login incorrect from 203.0.113.6"
    hear(world, *logs(*(SSHD.format(host="h0", n=n, source="203.0.113.5") for n in range(40)),
                      *(console.format(n=n) for n in range(40))))  # fmt: skip
    ssh, other = (
        world.stage._own.alarms[alarm_id("brute-force", f"203.0.113.{n}")] for n in (5, 6)
    )
    assert "source 203.0.113.5/32; protocol tcp; destination-port =22; }" in ssh.explain["do"]
    assert "no FlowSpec rule for 203.0.113.6: no line says at which port" in other.explain["do"]


def test_a_checkpoint_without_ports_is_read() -> None:
    world = AlarmWorld()
    world.stage._logins.restore([["203.0.113.5", "h0", 40.0, world.now_ns, world.now_ns]])
    assert hear(world) == [("raised", "brute-force", "203.0.113.5")]


def test_people_who_mistype_raise_nothing_and_other_lines_are_not_counted() -> None:
    world = AlarmWorld()
    people = [SSHD.format(host="h0", n=n, source=f"203.0.113.{n}") for n in range(60)]
    fine = ["<38>Sep 21 14:13:20 h0 sshd[1]: Accepted password for a from 203.0.113.5 port 22"] * 60
    assert hear(world, *logs(*people, *fine)) == []


def test_it_ends_when_the_tries_end_and_a_checkpoint_goes_on_with_the_count() -> None:
    world, state = AlarmWorld(), Snapshot()
    lines = [SSHD.format(host="h0", n=n, source="203.0.113.5") for n in range(58)]
    assert hear(world, *logs(*lines[:29])) == []
    world.stage.snapshot(state)
    world.stage = world.make_stage()
    world.stage.restore(state)
    assert hear(world, *logs(*lines[29:])) == [("raised", "brute-force", "203.0.113.5")]
    said = [one for _ in range(120) for one in hear(world)]
    assert said == [("cleared", "brute-force", "203.0.113.5")]


def test_logs_and_flows_of_one_brute_force_are_one_alarm() -> None:
    world = AlarmWorld()
    series = world.series("login", source_address="203.0.113.5", destination_port="22")
    told = []
    for k in range(3):
        for batch in logs(*(SSHD.format(host="h0", n=n, source="203.0.113.5") for n in range(40))):
            world.stage.process(batch)
        told += world.tick([world.anomaly(series, "login_tries", since_ns=world.now_ns - k)])
    assert [(a.kind, a.entity) for a in told] == [("brute-force", "203.0.113.5")]
    assert any(why.startswith("log of h0") for why in told[0].explain["why"])


def test_sources_without_end_take_no_memory_without_end() -> None:
    world = AlarmWorld()
    for first in range(0, 12_000, 1_000):
        rows = [
            {"host": "h0", "event": "login-failed",
             "message": f"Failed password from 10.{n >> 16}.{n >> 8 & 255}.{n & 255} port 1"}
            for n in range(first, first + 1_000)
        ]  # fmt: skip
        hear(world, batch_from_rows(LOG, rows))
    assert len(world.stage._logins.snapshot()) == PAIRS_MAX
    value = world.context.metrics.value
    assert value("alerting_left_out_total", what="failed_login_sources") == 12_000 - PAIRS_MAX
    hear(world, batch_from_rows(LOG, rows * 3))
    assert value("alerting_left_out_total", what="failed_login_lines") == 3_000 - LINES_MAX
