"""Polling: counters that only grow, names that stay, devices that fail, a node that is away."""

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.series_book import SeriesBook
from collectors.snmp.devices import PollOptions, read_devices
from collectors.snmp.poll import SnmpPoller
from collectors.snmp.profiles import load_profiles
from collectors.snmp.readings import DeviceMemory, Reader
from runtime.component import Context
from telemetry.errors import ConfigError, TransientError
from telemetry.snmp import ber
from tests.support.snmp_agent import SMALL, Agent, AgentServer
from tests.support.source_world import MemoryNode
from tocsin.testing import make_context

SECOND = 1_000_000_000
START = 1_790_000_000 * SECOND
PROFILES, NAMES = load_profiles()


def counted(*polls: tuple[int, int], bits: int = 32, anew: int = -1) -> list[int]:
    """Return what becomes of (uptime in s, raw value) polls a minute apart."""
    memory, made = DeviceMemory(), []
    for place, (uptime, value) in enumerate(polls):
        memory.up(uptime * 100, START + place * 60 * SECOND)
        made.append(memory.count(1, value, bits, began_anew=place == anew))
    return made


TOP = (1 << 32) - 1


@pytest.mark.parametrize(
    ("polls", "bits", "grown"),
    [
        pytest.param([(100, 5), (160, 25)], 32, [20], id="grows"),
        pytest.param([(100, TOP - 9), (160, 10), (220, 20)], 32, [20, 10], id="wraps-at-32-bits"),
        pytest.param([(100, 500), (20, 30), (80, 40)], 32, [30, 10], id="restart-begins-at-zero"),
        pytest.param([(100, 1 << 40), (20, 30)], 64, [30], id="restart-of-64-bits"),
        pytest.param([(100, 500), (20, 560)], 64, [60], id="only-the-agent-restarted"),
        pytest.param([(100, 500), (160, 3), (220, 10)], 32, [0, 7], id="set-back-by-hand"),
        pytest.param([(100, 1 << 40), (160, 3), (220, 10)], 64, [0, 7], id="set-back-64-bits"),
    ],
)
def test_a_counter_grows_by_what_was_counted(
    polls: list[tuple[int, int]], bits: int, grown: list[int]
) -> None:
    made = counted(*polls, bits=bits)
    assert [b - a for a, b in zip(made[:-1], made[1:], strict=True)] == grown
    assert made[0] == polls[0][1]


def test_a_discontinuity_adds_nothing() -> None:
    made = counted((100, 500), (160, 90_000), (220, 90_010), anew=1)
    assert made[1] - made[0] == 0
    assert made[2] - made[1] == 10


def test_uptime_that_wraps_after_497_days_is_no_restart() -> None:
    memory = DeviceMemory()
    near = (1 << 32) - 3000
    assert not memory.up(near, START)
    assert not memory.up(3000, START + 60 * SECOND)
    assert memory.up(100, START + 120 * SECOND)


@given(st.lists(st.integers(0, 1 << 30), min_size=1, max_size=30), st.integers(0, TOP))
def test_any_growth_survives_any_wrap(steps: list[int], first: int) -> None:
    raw, polls = first, [(100, first)]
    for place, step in enumerate(steps, 1):
        raw = (raw + step) & TOP
        polls.append((100 + 60 * place, raw))
    assert counted(*polls)[-1] - first == sum(steps)


class Read:
    """One device read by one profile's first table, poll by poll."""

    def __init__(self, profile: str, table: int = 0) -> None:
        self.book = SeriesBook(series_max=1000)
        self.reader = Reader(NAMES, self.book)
        self.table = PROFILES[profile].file.table[table]
        self.memory = DeviceMemory()
        self.keys: dict[int, str] = {}

    def poll(
        self, walks: Mapping[str, Mapping[str, Any]], *, uptime: int = 1000
    ) -> dict[str, float]:
        self.memory.up(uptime, START)
        samples = self.reader.table("ams1", self.table, walks, self.memory, START)
        for batch in self.book.waiting():
            self.keys |= dict(zip(batch["series_id"].tolist(), batch.texts("key"), strict=True))
        return {
            self.keys[series].removeprefix("entity=ams1,metric="): value
            for _, series, value, _ in samples
        }


def test_a_renumbered_interface_keeps_its_series() -> None:
    read = Read("interface")
    before = read.poll({"ifHCInOctets": {"3": 100}, "ifName": {"3": b"ae0"}})
    after = read.poll({"ifHCInOctets": {"9": 150}, "ifName": {"9": b"ae0"}})
    assert (before, after) == (
        {"in_octets,interface=ae0": 100.0}, {"in_octets,interface=ae0": 150.0},
    )  # fmt: skip


def test_two_rows_of_one_name_are_told_apart_and_one_without_a_name_has_its_index() -> None:
    read = Read("interface")
    walks = {"ifHCInOctets": {"1": 1, "2": 2, "3": 3}, "ifName": {"1": b"ge", "2": b"ge", "3": b""}}
    assert set(read.poll(walks)) == {
        "in_octets,interface=ge (1)", "in_octets,interface=ge (2)", "in_octets,interface=3",
    }  # fmt: skip


def test_32_bit_counters_stand_in_where_there_are_no_64() -> None:
    read = Read("interface")
    read.poll({"ifHCInOctets": {}, "ifInOctets": {"1": TOP}, "ifName": {"1": b"e1"}})
    found = read.poll({"ifInOctets": {"1": 9}, "ifName": {"1": b"e1"}}, uptime=7000)
    assert found == {"in_octets,interface=e1": float(TOP + 10)}


def test_a_row_s_discontinuity_is_its_own() -> None:
    read = Read("interface")
    names = {"1": b"a", "2": b"b"}
    time = "ifCounterDiscontinuityTime"
    read.poll({"ifHCInOctets": {"1": 10, "2": 10}, "ifName": names, time: {"1": 0, "2": 0}})
    found = read.poll(
        {"ifHCInOctets": {"1": 5000, "2": 30}, "ifName": names, time: {"1": 77, "2": 0}},
        uptime=7000,
    )
    assert found == {"in_octets,interface=a": 10.0, "in_octets,interface=b": 30.0}


def test_sensors_have_their_unit_and_scale() -> None:
    read = Read("environment")
    walks = {
        "entPhySensorValue": {"1": 412, "2": 3300, "3": 7},
        "entPhySensorType": {"1": 8, "2": 4, "3": 8},
        "entPhySensorScale": {"1": 9, "2": 8, "3": 9},
        "entPhySensorPrecision": {"1": 1, "2": 0, "3": 0},
        "entPhySensorOperStatus": {"1": 1, "2": 1, "3": 2},
        "entPhysicalName": {"1": b"CPU", "2": b"rail", "3": b"gone"},
    }
    found = read.poll(walks)
    assert found == pytest.approx(
        {"sensor_celsius,sensor=CPU": 41.2, "sensor_voltsDC,sensor=rail": 3.3}
    )
    (batch,) = read.book.waiting()
    assert batch.texts("unit") == ["Cel", "V"]


def test_storage_is_in_bytes_and_light_in_decibels() -> None:
    walks = {
        "hrStorageUsed": {"1": 10},
        "hrStorageAllocationUnits": {"1": 4096},
        "hrStorageDescr": {"1": b"/"},
    }
    assert Read("host", 1).poll(walks) == {"storage_used,storage=/": 40960.0}
    walks = {"jnxDomCurrentRxLaserPower": {"585": -512}, "ifName": {"585": b"xe-0/0/0"}}
    assert Read("optical").poll(walks) == {"optical_rx_power,interface=xe-0/0/0": -5.12}
    walks = {"hwEntityOpticalRxPower": {"67": -1}, "hwEntityOpticalTemperature": {"67": 30}}
    assert Read("optical", 1).poll(walks) == {"optical_temperature,interface=67": 30.0}


def test_peers_are_named_by_their_index() -> None:
    assert Read("bgp").poll({"bgpPeerState": {"10.0.0.1": 6}}) == {"bgp_state,peer=10.0.0.1": 6.0}


def test_neighbors_are_json() -> None:
    walks = {
        "lldpRemChassisIdSubtype": {"0.47.1": 4, "0.47.2": 4},
        "lldpRemChassisId": {
            "0.47.1": b"\x00\x11\x22\x33\x44\x55",
            "0.47.2": b"\x00\x11\x22\x33\x44\x66",
        },
        "lldpRemPortIdSubtype": {"0.47.1": 5, "0.47.2": 5},
        "lldpRemPortId": {"0.47.1": b"old", "0.47.2": b"et-0/0/1"},
        "lldpRemSysName": {"0.47.1": b"gone", "0.47.2": b"fra2"},
        "lldpLocPortId": {"47": b"et-0/0/3"},
    }
    ((key, text),) = Reader(NAMES, SeriesBook(series_max=10)).neighbors(walks).items()
    assert key == ("lldp", 47)
    assert json.loads(text) == {
        "local_port": "et-0/0/3", "remote": "fra2", "remote_port": "et-0/0/1",
        "remote_port_description": "", "chassis": "00:11:22:33:44:66",
    }  # fmt: skip


# ---- against emulated agents


@pytest.fixture
def agents() -> Iterator[AgentServer]:
    made = AgentServer({f"127.2.0.{n}": Agent(dict(SMALL)) for n in range(1, 5)})
    with made:
        yield made


class World:
    """A poller that is stepped, and the node it hands things to."""

    def __init__(self, server: AgentServer, folder: Path, **options: Any) -> None:
        self.node = MemoryNode()
        self.context: Context = make_context("sources.poll")
        devices = [
            {"address": address, "port": server.port, "name": f"device{place}"}
            for place, address in enumerate(server.agents)
        ]
        settings = {
            "devices": devices, "timeout_seconds": 0.15, "tries": 1, "down_after": 2, **options,
        }  # fmt: skip
        read = msgspec.convert(settings, PollOptions)
        self.poller = SnmpPoller("poll", read, self.context, self.node, folder)
        self.poller.prepare()

    def step(self, *, hand_over: bool = True) -> None:
        async def all_devices() -> None:
            await asyncio.gather(*(self.poller.poll(one) for one in self.poller.devices))

        asyncio.run(all_devices())
        if hand_over:
            self.poller.hand_over()

    def reachable(self) -> dict[str, float]:
        return {
            key.split(",")[0].removeprefix("entity="): value
            for key, (value, _) in self.node.values().items()
            if "metric=snmp_reachable" in key
        }


@pytest.fixture
def world(agents: AgentServer, tmp_path: Path) -> Callable[..., World]:
    return lambda **options: World(agents, tmp_path, **options)


def test_a_poll_gives_samples_names_and_a_ledger_that_closes(world: Callable[..., World]) -> None:
    run = world()
    run.step()
    values = run.node.values()
    assert values["entity=device0,metric=in_octets,interface=et-0/0/3"] == (1e12, 1)
    assert values["entity=device0,metric=oper_status,interface=et-0/0/3"] == (1.0, 0)
    assert values["entity=device0,metric=uptime"] == (3600.0, 0)
    (name,) = {row["name"] for row in run.node.rows("option")}
    assert name == "et-0/0/3"
    assert {row["key"] for row in run.node.rows("option")} == {7}
    ledger = run.node.rows("ledger")
    assert len(ledger) == 4
    for row in ledger:
        assert row["sent"] == row["decoded"] + row["lost_wire"] + row["undecodable"] > 10
    assert not run.node.alarms()
    run.step()
    assert len(run.node.rows("option")) == 4, "names are told when they change, and once an hour"


def test_what_a_device_does_not_have_is_not_asked_again(
    agents: AgentServer, world: Callable[..., World]
) -> None:
    run = world()
    run.step()
    first = agents.agents["127.2.0.1"].asked
    run.step()
    assert agents.agents["127.2.0.1"].asked - first < first / 3


def test_a_silent_a_strange_and_a_wrong_device_do_not_disturb_the_others(
    agents: AgentServer, world: Callable[..., World], caplog: pytest.LogCaptureFixture
) -> None:
    agents.agents["127.2.0.2"].silent = True
    agents.agents["127.2.0.3"].garbage = True
    agents.agents["127.2.0.4"].community = b"other"
    run = world()
    for _ in range(3):
        run.step()
    assert run.reachable() == {"device0": 1.0, "device1": 0.0, "device2": 0.0, "device3": 0.0}
    lines = [
        record.getMessage() for record in caplog.records if "device_fails" in record.getMessage()
    ]
    assert len(lines) == 3, "one line for each device, not for each poll"
    assert any(
        "device=device1 address=127.2.0.2: no answer within 0.15 s" in line for line in lines
    )
    assert any("the community is wrong" in line for line in lines)
    assert run.poller.health().startswith("3 of 4 devices do not answer, first device1 (127.2.0.2)")
    assert sorted(run.node.alarms()) == [
        (f"device{n}", "major", f"device{n} does not answer SNMP") for n in (1, 2, 3)
    ]
    timed_out = sum(row["lost_wire"] for row in run.node.rows("ledger"))
    errors = sum(row["undecodable"] for row in run.node.rows("ledger"))
    assert timed_out + errors == 9
    pauses = [device.failures for device in run.poller.devices]
    assert pauses == [0, 3, 3, 3]


def test_a_flapping_device_raises_and_clears_one_alarm(
    agents: AgentServer, world: Callable[..., World]
) -> None:
    run = world()
    for silent in (False, True, True, False, True, False):
        agents.agents["127.2.0.1"].silent = silent
        run.step()
    assert [(entity, severity) for entity, severity, _ in run.node.alarms()] == [
        ("device0", "major"), ("device0", "cleared"),
    ]  # fmt: skip
    assert run.poller.health() == ""


def test_the_alarm_of_a_device_that_came_back_while_we_were_away_is_cleared(
    agents: AgentServer, world: Callable[..., World]
) -> None:
    agents.agents["127.2.0.1"].silent = True
    run = world()
    run.step()
    run.step()
    agents.agents["127.2.0.1"].silent = False
    again = world()
    again.step()
    assert [(entity, severity) for entity, severity, _ in again.node.alarms()] == [
        ("device0", "cleared")
    ]
    third = world()
    third.step()
    assert not third.node.alarms()


def test_while_the_node_is_away_the_oldest_samples_go_and_alarms_stay(
    agents: AgentServer, world: Callable[..., World]
) -> None:
    agents.agents["127.2.0.2"].silent = True
    run = world(waiting_max=40)
    run.node.away = True
    for _ in range(4):
        run.step(hand_over=False)
    with pytest.raises(TransientError):
        run.poller.hand_over()
    run.step(hand_over=False)
    run.node.away = False
    run.poller.hand_over()
    run.poller.hand_over()
    assert [entity for entity, _, _ in run.node.alarms()] == ["device1"]
    assert run.context.metrics.value("snmp_samples_dropped_total", why="node_away") > 0
    assert len(set(run.node.tokens)) == len(run.node.tokens)
    polls = run.context.metrics.value("snmp_polls_total", end="ok") + run.context.metrics.value(
        "snmp_polls_total", end="failed"
    )
    assert polls == 20


def test_an_answer_that_was_lost_is_offered_again_under_its_token(
    world: Callable[..., World],
) -> None:
    run = world()
    run.node.forgets_to_answer = True
    run.step(hand_over=False)
    with pytest.raises(TransientError):
        run.poller.hand_over()
    run.node.forgets_to_answer = False
    run.poller.hand_over()
    assert len(run.node.tokens) == 1


def test_a_long_table_is_cut_and_counted(agents: AgentServer, world: Callable[..., World]) -> None:
    for n in range(50):
        agents.agents["127.2.0.1"].values[f"1.3.6.1.2.1.2.2.1.8.{n + 10}"] = ber.number(1)
    agents.agents["127.2.0.1"].put("1.3.6.1.2.1.2.2.1.8.9", ber.number(1))
    run = world(rows_max=20)
    run.step()
    status = [key for key in run.node.values() if "device0,metric=oper_status" in key]
    assert len(status) == 20
    assert run.context.metrics.value("snmp_samples_dropped_total", why="walk_cut") == 1


def test_it_starts_stops_and_says_so_twice(world: Callable[..., World]) -> None:
    run = world(interval_seconds=0.2)
    run.poller.start()
    run.poller.stop()
    run.poller.stop()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "no devices"),
        ({"devices": [{"address": "ams1"}]}, "'ams1' is no address"),
        ({"devices": [{"address": "10.0.0.1"}, {"address": "10.0.0.1"}]}, "named twice"),
        ({"devices": [{"address": "10.0.0.1", "credential": "core"}]}, "no credential 'core'"),
        ({"devices": [{"address": "10.0.0.1", "profiles": ["interfaces"]}]}, "no profile 'interfaces'"),
        ({"devices_file": "/nowhere.toml"}, "/nowhere.toml: No such file"),
        ({"credentials": {"a": {"version": "v3"}}, "devices": [{"address": "10.0.0.1"}]}, "needs a user"),
        ({"credentials": {"a": {"community_file": "/nowhere"}}, "devices": [{"address": "10.0.0.1"}]}, "/nowhere"),
        ({"devices": [{"address": f"10.0.0.{n}"} for n in range(3)], "devices_max": 2}, "devices_max is 2"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_one_sentence(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_devices(msgspec.convert(options, PollOptions), PROFILES)


def test_devices_come_from_a_file_too(tmp_path: Path) -> None:
    path = tmp_path / "devices.toml"
    path.write_text("""
        [[device]]
        address = "10.0.0.1"
        name = "ams1"
        profiles = ["interface"]
        [[device]]
        address = "2001:db8::1"
    """)
    first, second = read_devices(PollOptions(devices_file=str(path)), PROFILES)
    assert (first.entity, [p.name for p in first.profiles]) == ("ams1", ["interface"])
    assert (second.entity, len(second.profiles)) == ("2001:db8::1", len(PROFILES))


def test_a_profile_of_one_s_own_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "acme.toml"
    path.write_text("""
        title = "acme"
        [objects]
        acmeLoad = "1.3.6.1.4.1.55555.1.1"
        [[scalar]]
        object = "acmeLoad"
        metric = "load"
    """)
    profiles, names = load_profiles([str(path)])
    assert profiles["acme"].file.scalar[0].metric == "load"
    assert names.oid("acmeLoad") == "1.3.6.1.4.1.55555.1.1"
    path.write_text('title = "x"\n[[scalar]]\nobject = "noSuch"\nmetric = "m"\n')
    with pytest.raises(ConfigError, match="no object 'noSuch'"):
        load_profiles([str(path)])


def test_the_profile_in_the_documentation_is_one(tmp_path: Path) -> None:
    text = (Path(__file__).parents[3] / "docs/snmp.md").read_text("utf-8")
    path = tmp_path / "shelf.toml"
    path.write_text(text.split("```toml profile\n")[1].split("```")[0])
    profiles, names = load_profiles([str(path)])
    reader, memory = Reader(names, SeriesBook(series_max=10)), DeviceMemory()
    walks = {
        "acmePsuName": {"1": b"A", "2": b"B"},
        "acmePsuVolts": {"1": 48_100, "2": 0},
        "acmePsuState": {"1": 1, "2": 3},
    }
    samples = reader.table("shelf", profiles["shelf"].file.table[0], walks, memory, START)
    assert sorted(value for _, _, value, _ in samples) == [1.0, 3.0, 48.1]
