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


def test_a_name_learned_by_polling_counts() -> None:
    network = FileNetworkMap(NetworkFile(router=[RouterEntry(name="ams1", address="192.0.2.1")]))
    assert entity_name("192.0.2.1:interface 7", network) == "ams1:interface 7"
    row = {"exporter_address_low": 0xFFFF_C000_0201, "table": "interface", "key": 7, "name": "xe-7"}
    network.learn(batch_from_rows(OPTION, [row]))
    assert entity_name("192.0.2.1:interface 7", network) == "ams1:xe-7"
