"""Names, enumerations, hints, index; the rules that ship."""

from pathlib import Path

import pytest

from collectors.snmp.mapping import load_mapping
from collectors.snmp.names import Object, hint_text, load_names, shipped_names
from telemetry.errors import ConfigError
from telemetry.snmp import ber, message
from telemetry.snmp.message import Notification, notification_of, read_envelope, read_pdu, varbind
from tests.support.snmp_messages import told, trap_v1, trap_v2


@pytest.mark.parametrize(
    ("oid", "label"),
    [
        ("1.3.6.1.2.1.2.2.1.8.3", "ifOperStatus.3"),
        ("1.3.6.1.2.1.15.3.1.2.10.0.0.1", "bgpPeerState.10.0.0.1"),
        ("1.3.6.1.2.1.1.3.0", "sysUpTime.0"),
        ("1.3.6.1.4.1.9.9.187.1.2.5.1.3.2.16.32.1.13.184.0.0.0.0.0.0.0.0.0.0.0.7", "cbgpPeer2State.ipv6.2001:db8::7"),
        ("1.3.6.1.2.1.14.10.1.6.10.1.1.1.0", "ospfNbrState.10.1.1.1.0"),
        ("1.3.6.1.4.1.99999.1.2", "1.3.6.1.4.1.99999.1.2"),
    ],
)  # fmt: skip
def test_an_instance_is_named_with_its_index_apart(oid: str, label: str) -> None:
    assert shipped_names().label(oid) == label


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("ifOperStatus", 7, "lowerLayerDown"),
        ("ifOperStatus", 99, "99"),
        ("ifPhysAddress", bytes.fromhex("001b21a0ff01"), "00:1b:21:a0:ff:01"),
        ("ifDescr", b"GigabitEthernet0/1\0", "GigabitEthernet0/1"),
        ("ifAlias", "Düsseldorf ↔ Köln".encode(), "Düsseldorf ↔ Köln"),
        ("ifAlias", "Düsseldorf".encode("latin-1"), "Düsseldorf"),
        ("hrSystemDate", bytes.fromhex("07e6060f0c1e2d052b0200"), "2022-06-15T12:30:45.5+02:00"),
        ("hrSystemDate", bytes.fromhex("07e6060f0c1e2d05"), "2022-06-15T12:30:45.5"),
        ("cbgpPeer2RemoteAddr", bytes.fromhex("20010db8" + "00" * 11 + "07"), "2001:db8::7"),
        ("cbgpPeer2RemoteAddr", bytes((192, 0, 2, 7)), "192.0.2.7"),
        ("sysUpTime", 8_640_123, "1d 00:00:01.23"),
        ("sysObjectID", "1.3.6.1.2.1.2.2.1.8.4", "ifOperStatus.4"),
    ],
)
def test_values_are_texts(name: str, value: object, text: str) -> None:
    names = shipped_names()
    assert names.text(names.by_oid[names.oid(name)], value) == text  # type: ignore[arg-type]


def test_octets_of_unknown_objects_are_text_only_where_they_read_as_one() -> None:
    names = shipped_names()
    assert names.text(None, b"chassis 1") == "chassis 1"
    assert names.text(None, b"\x00\x1b\x21\xa0") == "00:1b:21:a0"
    assert names.text(None, b"\xff\xfe\xfd") == "ff:fe:fd"


def test_hints_with_repeats_and_odd_ends() -> None:
    assert hint_text("*1x:/1x:", bytes.fromhex("020a0b0102")) == "0a:0b/01:02"
    assert hint_text("1d.1d.1d.1d/2d", bytes((192, 0, 2, 1, 0, 80))) == "192.0.2.1/80"
    assert hint_text("2d-1d", b"\x07\xe6") == "2022"
    assert hint_text("255a", b"abc") == "abc"


def test_a_fixed_point_hint_moves_the_point() -> None:
    scaled = Object("1.3.6.1.9", "scaled", "X", "scalar", "integer", "d-2")
    assert shipped_names().text(scaled, 1234) == "12.34"


def test_notifications_of_the_standards_are_all_known(shared: Path) -> None:
    """shared/specs/mibs/notifications.csv was made from the MIB modules by another tool."""
    lines = (shared / "specs/mibs/notifications.csv").read_text("utf-8").splitlines()[1:]
    mapping = load_mapping()
    assert len(lines) > 45
    for line in lines:
        _, name, oid = line.split(",")[:3]
        assert mapping.name(oid) in (name, oid)
        if oid in mapping.names.by_oid:
            assert mapping.names.by_oid[oid].name == name
    mapped = [line for line in lines if line.split(",")[2] in mapping.rules]
    assert len(mapped) > 38


def meaning_of(data: bytes):  # type: ignore[no-untyped-def]
    envelope = read_envelope(data)
    pdu = read_pdu(data, envelope.start, envelope.stop)
    return load_mapping().meaning(notification_of(pdu))


PEER = "10.0.0.1"
BGP, OSPF, ISIS = "1.3.6.1.2.1.15", "1.3.6.1.2.1.14", "1.3.6.1.2.1.138"
CISCO, NOKIA = "1.3.6.1.4.1.9.9", "1.3.6.1.4.1.6527.3.1"
JUNIPER, ARISTA = "1.3.6.1.4.1.2636", "1.3.6.1.4.1.30065.4.1"
UNIT, ERICSSON = f"{JUNIPER}.3.1.8.1", "1.3.6.1.4.1.193.183.4"
VRF, ALARM = "1.3.6.1.2.1.10.166.11", "1.3.6.1.2.1.118"
NEIGHBOR = f"""{OSPF}.1.1.0 a 1.1.1.1; {OSPF}.10.1.1.10.1.1.1.0 a 10.1.1.1;
    {OSPF}.10.1.2.10.1.1.1.0 i 0; {OSPF}.10.1.6.10.1.1.1.0 i """
CASES = [
    (
        f"{BGP}.0.2",
        f"{BGP}.3.1.14.{PEER} x 0602; {BGP}.3.1.2.{PEER} i 1",
        "bgpPeerDown major",
        (PEER,),
    ),
    (f"{BGP}.7.1", f"{BGP}.3.1.2.{PEER} i 6", "bgpPeerDown cleared", (PEER,)),
    (f"{CISCO}.187.0.1", f"{BGP}.3.1.2.{PEER} i 3", "bgpPeerDown major", (PEER,)),
    (f"{CISCO}.187.0.1", f"{BGP}.3.1.2.{PEER} i 6", "bgpPeerDown cleared", (PEER,)),
    (f"{OSPF}.16.2.2", NEIGHBOR + "1", "ospfNeighborDown major", ("10.1.1.1", "0")),
    (f"{OSPF}.16.2.2", NEIGHBOR + "8", "ospfNeighborDown cleared", ("10.1.1.1", "0")),
    (
        f"{ISIS}.0.17",
        f"{ISIS}.1.10.1.1.0 i 2; {ISIS}.1.10.1.2.0 i 14; {ISIS}.1.10.1.12.0 i 3",
        "isisAdjacencyDown cleared",
        ("level-2", "14", ""),
    ),
    ("1.3.6.1.2.1.131.0.2", "1.3.6.1.2.1.131.1.1.1.2.5 i 4", "entityDisabled major", ("5",)),
    ("1.3.6.1.2.1.131.0.1", "1.3.6.1.2.1.131.1.1.1.2.5 i 4", "entityDisabled cleared", ("5",)),
    (f"{CISCO}.117.2.0.1", f"{CISCO}.117.1.2.1.1.2.1000 i 7", "module critical", ("1000",)),
    (
        f"{CISCO}.13.3.0.9",
        f"{CISCO}.13.1.5.1.2.1 s PS1; {CISCO}.13.1.5.1.3.1 i 3",
        "powerSupply critical",
        ("1", "PS1"),
    ),
    (
        f"{JUNIPER}.4.1.1",
        f"{UNIT}.1.2.1.0.0 i 2; {UNIT}.2.2.1.0.0 i 1; {UNIT}.3.2.1.0.0 i 0; {UNIT}.4.2.1.0.0 i 0",
        "powerSupply major",
        ("2", "1", "0", "0"),
    ),
    (
        f"{NOKIA}.3.2.1.0.25",
        f"{NOKIA}.2.2.6.4.0 i 83; {NOKIA}.2.2.6.6.0 o {NOKIA}.3.2.1.0.6",
        "tmnxEqFanFailure cleared",
        ("83",),
    ),
    (
        "1.3.6.1.4.1.2011.5.25.219.2.2.3",
        "1.3.6.1.2.1.47.1.1.1.1.7.67 s LPU 3",
        "board major",
        ("67",),
    ),
    (f"{ARISTA}.0.2", f"{ARISTA}.1.2.1.13.1.1.4.10.0.0.1 i 1", "bgpPeerDown major", (PEER,)),
    (
        f"{ERICSSON}.2.0.5",
        f"{ERICSSON}.1.3.5.1.2 i 193; {ERICSSON}.1.3.5.1.3 i 7; {ERICSSON}.1.3.5.1.5 s ME=1",
        "ericssonAlarm critical",
        ("193", "7", "ME=1"),
    ),
    (
        f"{ALARM}.0.2",
        (
            f"{ALARM}.1.2.2.1.13.1.2.3 o {ALARM}.1.1.2.1.3.0.7.5; "
            f"{ALARM}.1.2.2.1.10.1.2.3 o 1.3.6.1.2.1.2.2.1.1.4"
        ),
        f"{ALARM}.1.1.2.1.3.0.7 major",
        (f"{ALARM}.1.1.2.1.3.0.7", "ifIndex.4"),
    ),
    (
        "1.3.6.1.2.1.33.2.3",
        "1.3.6.1.2.1.33.1.6.2.1.1.4 i 4; 1.3.6.1.2.1.33.1.6.2.1.2.4 o 1.3.6.1.2.1.33.1.6.3.2",
        "upsAlarm major",
        ("4",),
    ),
    (f"{VRF}.0.2", f"{VRF}.1.2.2.1.6.3.82.69.68 i 2", "vrfDown major", ("RED",)),
]


@pytest.mark.parametrize(("trap", "said", "means", "key"), CASES, ids=[c[0] for c in CASES])
def test_rules_say_what_a_trap_means(
    trap: str, said: str, means: str, key: tuple[str, ...]
) -> None:
    found = meaning_of(trap_v2(trap, told(said)))
    assert found is not None
    assert (f"{found.kind} {found.severity}", found.key) == (means, key)


def test_a_trap_is_the_same_as_v1_and_v2_whatever_its_form() -> None:
    pair = [(f"1.3.6.1.2.1.15.3.1.2.{PEER}", ber.number(1))]
    forms = [
        trap_v1("1.3.6.1.2.1.15.7", 6, 2, pair),  # becomes 15.7.0.2; defined as 15.7.2
        trap_v1("1.3.6.1.2.1.15", 6, 2, pair),
        trap_v1("1.3.6.1.2.1.15.0.2", 6, 2, pair),  # the whole trap OID in the enterprise field
        trap_v2("1.3.6.1.2.1.15.7.2", pair),
        trap_v2("1.3.6.1.2.1.15.0.2", pair),
    ]
    assert {meaning_of(data).kind for data in forms} == {"bgpPeerDown"}


def test_snmp_trap_oid_without_instance_is_taken_too() -> None:
    vb = message.write_varbind(message.SNMP_TRAP_OID, ber.oid("1.3.6.1.6.3.1.1.5.1"))
    data = message.write_message(1, b"public", message.write_pdu(ber.Tag.TRAP_V2, 1, vb))
    assert meaning_of(data).kind == "restart"


def test_every_shipped_rule_has_a_clear_or_a_time_to_end() -> None:
    """What raises an alarm that nothing ends would stand for ever."""
    mapping = load_mapping()
    cleared = {
        rule.kind
        for rule in mapping.rules.values()
        if rule.severity == "cleared" or (rule.state and "cleared" in rule.state.values.values())
    }
    wildcards = [kind for kind in cleared if kind.startswith("{")]
    for rule in mapping.rules.values():
        if rule.severity == "cleared" or rule.clear_after_seconds:
            continue
        assert rule.kind in cleared or (rule.kind.startswith("tmnx") and wildcards), rule


def test_own_rules_come_last_and_need_no_table_of_names(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("""
        [objects]
        acmeState = "1.3.6.1.4.1.55555.1.1"
        [enumerations]
        acmeState = { well = 1, ill = 2 }
        [[trap]]
        trap = ["1.3.6.1.4.1.55555.0.1", "linkDown"]
        kind = "acme"
        state = { object = "acmeState", values = { well = "cleared", "*" = "critical" } }
        key = ["acmeState@instance"]
        cause = "fire"
        title = "{device} is {acmeState}"
    """)
    mapping = load_mapping([str(path)])
    one = varbind("1.3.6.1.4.1.55555.1.1.7", 2, b"\x02")
    found = mapping.meaning(Notification("1.3.6.1.4.1.55555.0.1", 0, "", (one,)))
    assert found is not None
    assert (found.severity, found.key, found.event_type) == (
        "critical",
        ("7",),
        "environmentalAlarm",
    )
    assert mapping.rules["1.3.6.1.6.3.1.1.5.3"].kind == "acme"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[trap]]\ntrap = 'linkDown'\nseverity = 'awful'\n", "severity 'awful' is none of"),
        ("[[trap]]\ntrap = 'linkDown'\ncause = 'gremlins'\n", "X.733 knows no cause 'gremlins'"),
        ("[[trap]]\ntrap = 'noSuchTrap'\n", "no object 'noSuchTrap' is known"),
        ("[[trap]]\ntrapp = 'linkDown'\n", "trapp"),
        ("[[trap\n", "mine.toml"),
    ],
)
def test_a_mistake_in_a_rule_is_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"mine\.toml") as raised:
        load_mapping([str(path)])
    assert said in str(raised.value)


def test_a_table_of_names_is_read_and_a_bad_line_is_named(tmp_path: Path) -> None:
    table = tmp_path / "names.tsv"
    table.write_text("1.3.6.1.4.1.55555.1\tacmeThing\tACME-MIB\tscalar\tinteger\t\ton=1 off=2\n")
    names = load_names([str(table)])
    assert names.label("1.3.6.1.4.1.55555.1.0") == "acmeThing.0"
    assert names.text(names.by_oid["1.3.6.1.4.1.55555.1"], 2) == "off"
    table.write_text("nonsense\n")
    with pytest.raises(ConfigError, match=r"names\.tsv:1"):
        load_names([str(table)])


def test_the_rule_in_the_documentation_is_one(tmp_path: Path) -> None:
    text = (Path(__file__).parents[3] / "docs/snmp.md").read_text("utf-8")
    path = tmp_path / "rules.toml"
    path.write_text(text.split("```toml rules\n")[1].split("```")[0])
    oid = "1.3.6.1.4.1.55555.1.2.1"
    said = (varbind(f"{oid}.2.4", 4, b"PSU 4"), varbind(f"{oid}.3.4", 2, b"\x03"))
    found = load_mapping([str(path)]).meaning(Notification("1.3.6.1.4.1.55555.0.7", 0, "", said))
    assert found is not None
    assert (found.kind, found.severity, found.key, found.label) == (
        "acmePsu",
        "major",
        ("4",),
        "PSU 4",
    )
