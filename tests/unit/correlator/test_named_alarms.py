"""Foreign alarms meet our own under one name."""

import pytest

from correlator.named_alarms import entity_name, name_alarms
from correlator.tables.network_map import (
    FileNetworkMap,
    InterfaceEntry,
    NetworkFile,
    RouterEntry,
)  # fmt: skip
from telemetry.batch import batch_from_rows
from telemetry.foreign_alarm import alarm_row
from telemetry.identity import stable_id
from telemetry.schemas import ALARM, OPTION

NETWORK = FileNetworkMap(
    NetworkFile(
        router=[
            RouterEntry(name="ams1", address="192.0.2.1"),
            RouterEntry(name="lon1", address="192.0.2.12"),
            RouterEntry(name="par1", address="2001:db8::1"),
            RouterEntry(name="fra1.lab.example.net", address="192.0.2.20"),
            RouterEntry(name="fra1.core.example.net", address="192.0.2.21"),
            RouterEntry(name="ber1.core", address="192.0.2.22"),
            RouterEntry(name="10", address="192.0.2.23"),
        ],
        interface=[InterfaceEntry(router="ams1", index=5, name="et-0/0/5")],
    )
)


@pytest.mark.parametrize(
    ("entity", "name"),
    [
        pytest.param("192.0.2.1:et-0/0/5", "ams1:et-0/0/5", id="interface"),
        pytest.param("192.0.2.1", "ams1", id="device"),
        pytest.param("192.0.2.1:interface 5", "ams1:et-0/0/5", id="interface-by-number"),
        pytest.param("192.0.2.1:5", "ams1:et-0/0/5", id="bare-number"),
        pytest.param("192.0.2.1:interface 6", "ams1:interface 6", id="number-not-known"),
        pytest.param("192.0.2.12 peer 192.0.2.1", "lon1 peer 192.0.2.1", id="not-the-neighbour"),
        pytest.param("192.0.2.1/slot 3", "ams1/slot 3", id="slash"),
        pytest.param("2001:db8::1:ge-0/0/1", "par1:ge-0/0/1", id="v6"),
        pytest.param("2001:db8::1", "par1", id="v6-device"),
        pytest.param("ams1:5", "ams1:et-0/0/5", id="named-already"),
        pytest.param("ams1:et-0/0/5", "ams1:et-0/0/5", id="as-it-is"),
        pytest.param("198.51.100.9:xe-1", "198.51.100.9:xe-1", id="unknown-device"),
        pytest.param("ams1.example.net:et-0/0/5", "ams1:et-0/0/5", id="fqdn"),
        pytest.param("AMS1.example.net:5", "ams1:et-0/0/5", id="fqdn-and-number"),
        pytest.param("ams1.example.net", "ams1", id="fqdn-device"),
        pytest.param("Ams1", "ams1", id="host-names-have-no-case"),
        pytest.param("fra1:xe-1", "fra1:xe-1", id="a-label-of-two-routers"),
        pytest.param(
            "fra1.core:xe-1", "fra1.core.example.net:xe-1", id="labels-that-tell-them-apart"
        ),
        pytest.param("fra1.core.example.org", "fra1.core.example.org", id="another-domain"),
        pytest.param("ber1.core.example.net", "ber1.core", id="more-labels-than-the-map"),
        pytest.param("ber1", "ber1.core", id="fewer-labels-than-the-map"),
        pytest.param("ber1.edge.example.net", "ber1.edge.example.net", id="not-in-that-part"),
        pytest.param("10.9.9.9", "10.9.9.9", id="an-address-is-no-label"),
        pytest.param("lon1 peer ams1.example.net", "lon1 peer ams1.example.net", id="not-the-peer"),
        pytest.param("RNC 7", "RNC 7", id="no-address"),
        pytest.param("", "", id="empty"),
    ],
)
def test_entities_get_the_map_s_name(entity: str, name: str) -> None:
    assert entity_name(entity, NETWORK) == name


def test_an_alarm_keeps_its_id_and_its_title_follows() -> None:
    made = [
        alarm_row(
            source="traps", kind="linkDown", entity=entity, severity="major", changed_ns=1, title=title
        )
        for entity, title in (
            ("192.0.2.1:et-0/0/5", "192.0.2.1:et-0/0/5 is down, 192.0.2.1 says, not 192.0.2.12"),
            ("198.51.100.9", "198.51.100.9 restarts"),
        )
    ]  # fmt: skip
    before = batch_from_rows(ALARM, made)
    after = name_alarms(before, NETWORK)
    assert after.texts("entity") == ["ams1:et-0/0/5", "198.51.100.9"]
    assert after.texts("specific_problem") == [
        "ams1:et-0/0/5 is down, ams1 says, not 192.0.2.12",
        "198.51.100.9 restarts",
    ]
    assert after["alarm_id"].tolist() == before["alarm_id"].tolist()
    assert after["entity_id"].tolist() == [stable_id("ams1:et-0/0/5"), stable_id("198.51.100.9")]
    assert name_alarms(after, NETWORK) is after  # nothing left to name


def test_the_system_name_that_polling_heard_counts() -> None:
    network = FileNetworkMap(NetworkFile(router=[RouterEntry(name="ams1", address="192.0.2.1")]))
    assert entity_name("AMS-R1-re0:xe-7", network) == "AMS-R1-re0:xe-7"
    said = '{"entity": "ams1", "system": "AMS-R1-re0"}'
    row = {"exporter_address_low": 0xFFFF_C000_0201, "table": "device", "key": 0, "name": said}
    network.learn(batch_from_rows(OPTION, [row]))
    assert entity_name("AMS-R1-re0:xe-7", network) == "ams1:xe-7"


def test_a_name_learned_by_polling_counts() -> None:
    network = FileNetworkMap(NetworkFile(router=[RouterEntry(name="ams1", address="192.0.2.1")]))
    assert entity_name("192.0.2.1:interface 7", network) == "ams1:interface 7"
    row = {"exporter_address_low": 0xFFFF_C000_0201, "table": "interface", "key": 7, "name": "xe-7"}
    network.learn(batch_from_rows(OPTION, [row]))
    assert entity_name("192.0.2.1:interface 7", network) == "ams1:xe-7"
