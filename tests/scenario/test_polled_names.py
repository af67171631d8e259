"""Flows name their interfaces by what SNMP polling learned: from the device's answer to the alert."""

import asyncio
import struct
from pathlib import Path
from typing import Any

import msgspec
import pytest

from alerting.words.alert import Alert
from alerting.words.alerts import alerts_of
from collectors.config import FlowDecoderSettings
from collectors.datagram import Datagram, pack
from collectors.flow.decoder import FlowDecoder
from collectors.snmp.devices import PollOptions
from collectors.snmp.poll import SnmpPoller
from correlator.windows import FlowWindows
from detectors.config import AlsoSettings, DetectionSettings, ProbationSettings
from runtime.clock import ManualClock
from runtime.metrics import Metrics
from telemetry.batch import Batch
from telemetry.identity import address_pair
from tests.support.flow_messages import data_set, ipfix, template_set
from tests.support.snmp_agent import SMALL, Agent, AgentServer
from tests.support.source_world import MemoryNode
from tocsin.chain.assembly import make_back
from tocsin.chain.front import Front
from tocsin.config import Config
from tocsin.testing import make_context

SECOND = 1_000_000_000
START_NS = 1_790_000_040 * SECOND
ROUTER = "127.2.0.9"
FIELDS = [(8, 4), (12, 4), (10, 4), (14, 4), (1, 8), (2, 8)]


def export(minute: int, octets: int) -> bytes:
    """Return one flow record that came in through interface 7 and out again, where the agent has et-0/0/3."""
    flow = struct.pack("!IIIIQQ", 0xC6336401, 0xC6336402, 7, 7, octets, 1000)
    made = bytearray(ipfix(template_set(256, FIELDS), data_set(256, flow), sequence=minute))
    made[4:8] = struct.pack("!I", START_NS // SECOND + 60 * minute)
    return bytes(made)


def polled(folder: Path) -> list[Batch]:
    """Return what a poll of the router hands over."""
    node = MemoryNode()
    with AgentServer({ROUTER: Agent(dict(SMALL))}) as server:
        device = {"address": ROUTER, "port": server.port, "profiles": ["interface"]}
        options = msgspec.convert({"devices": [device]}, PollOptions)
        poller = SnmpPoller("poll", options, make_context("sources.poll"), node, folder)
        poller.prepare()
        asyncio.run(poller.poll(poller.devices[0]))
        poller.hand_over()
    return node.batches


def alerts(folder: Path, *, poll: bool) -> list[Alert]:
    """Play six minutes of flows, of which the last exceed a limit; the poll comes in the second."""
    limit = {"view": "interface", "measure": "octets", "above": 1e6}
    detection: dict[str, Any] = {
        "also": {"limit": AlsoSettings(kind="threshold", options=limit)},
        "probation": ProbationSettings(mode="off"),
    }
    config = Config(detection=DetectionSettings(false_alerts_per_day=1000.0, **detection))
    front = Front(
        {"flow": FlowDecoder(FlowDecoderSettings(), make_context())},
        FlowWindows(config.all_views(), make_context()),
    )
    back = make_back(config, ManualClock(), Metrics("test"))
    told: list[Alert] = []
    for minute in range(8):
        octets = 1_000_000 if minute < 4 else 1_000_000_000
        high, low = address_pair(ROUTER)
        at_ns = START_NS + 60 * minute * SECOND + SECOND
        datagram = Datagram(at_ns, high, low, 4000, 2055, export(minute, octets))
        front.feed("flow", pack([datagram]))
        if minute == 1 and poll:
            for batch in polled(folder):
                back.offer([batch])
        for closing in front.step():
            for outcome in back.take(closing):
                told += [one for batch in outcome.alarms for one in alerts_of(batch)]
    return told


@pytest.mark.parametrize(("poll", "name"), [(True, "et-0/0/3"), (False, "7")])
def test_an_alert_of_a_flow_series_names_its_interface(
    tmp_path: Path, poll: bool, name: str
) -> None:
    entities = {one.entity for one in alerts(tmp_path, poll=poll)}
    ours = {f"{ROUTER}:{said}" for said in ("7", "et-0/0/3")} & entities
    assert ours == {f"{ROUTER}:{name}"}
