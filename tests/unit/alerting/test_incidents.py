"""Grouping: one fault one incident, two faults two, and people are told each once."""

import json
from typing import Any

import pytest

from alerting.config import AlertingSettings
from alerting.records.alarm import Alarm
from alerting.records.layers import EQUIPMENT, LINK, OTHER, POWER, PROTOCOL, nature_of
from alerting.words.alert import Alert
from correlator.tables.network_map import (
    FileNetworkMap,
    InterfaceEntry,
    LinkEntry,
    NetworkFile,
    PrefixEntry,
    RouterEntry,
)
from runtime.checkpoint import Snapshot
from telemetry.batch import Batch
from tocsin.files.topologies import network_of
from tocsin.testing.alarms import AlarmWorld


def chain_network(length: int = 12) -> FileNetworkMap:
    """Return a ring of core routers c0..c3 and a chain a0, a1, ... that hangs on c0."""
    ring = [("c0", "c1"), ("c1", "c2"), ("c2", "c3"), ("c3", "c0")]
    chain = [("c0", "a0"), *((f"a{i}", f"a{i + 1}") for i in range(length - 1))]
    return network_of(ring + chain, [])


def incidents(batches: list[Batch]) -> list[dict[str, Any]]:
    made = []
    for batch in batches:
        if batch.schema.name == "incident":
            for i in range(batch.rows):
                row: dict[str, Any] = {
                    name: batch.texts(name)[i] for name in ("state", "title", "severity", "entity")
                }
                for name in ("alarms", "causes", "impact", "symptoms"):
                    row[name] = json.loads(batch.texts(name)[i])
                row["id"] = int(batch["incident_id"][i])
                row["parent"] = int(batch["parent_incident_id"][i])
                made.append(row)
    return made


def newest(world: AlarmWorld, *batches: list[Batch]) -> dict[int, dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    for one in batches:
        found.update({row["id"]: row for row in incidents(one)})
    return found


def test_a_cut_line_with_three_hundred_symptoms_is_one_incident_with_its_cause() -> None:
    world = AlarmWorld(AlertingSettings(storm_alarms=1000), network=chain_network(100))
    symptoms = [
        world.report(kind, f"a{i}", "major", probable_cause="communicationsProtocolError")
        for i in range(1, 100)
        for kind in ("ospfNbrDown", "bgpDown", "nodeUnreachable")
    ]
    cut = [world.report("linkDown", f"{n}:{i}", "critical", probable_cause="lossOfSignal")
           for n, i in (("a0", 2), ("a1", 1))]  # fmt: skip
    found = newest(
        world,
        world.second(*symptoms[:20]),
        world.second(*cut, *symptoms[20:]),
        world.second(seconds=20),
    )
    told = [row for row in found.values() if row["state"] == "raised"]
    assert len(told) == 1
    assert len(told[0]["alarms"]) == 2 + len(symptoms)
    assert told[0]["causes"][0]["kind"] == "linkDown"
    assert told[0]["title"].startswith("linkDown on a")
    assert told[0]["impact"]["links"] == ["a0-a1"]
    assert told[0]["impact"]["cut_off_count"] == 99


def star(leaves: int = 12) -> FileNetworkMap:
    """Return a hub whose port i leads to port 1 of leaf p{i}; the leaves are a ring by ports 2 and 3."""
    names = [f"p{i}" for i in range(1, leaves + 1)]
    spokes = [
        LinkEntry(name=f"hub-{n}", a="hub", a_index=i + 1, b=n, b_index=1)
        for i, n in enumerate(names)
    ]
    ring = [LinkEntry(name=f"{a}-{b}", a=a, a_index=2, b=b, b_index=3)
            for a, b in zip(names, [*names[1:], names[0]], strict=True)]  # fmt: skip
    routers = [
        RouterEntry(name=n, address=f"192.0.2.{i + 1}") for i, n in enumerate(["hub", *names])
    ]
    return FileNetworkMap(NetworkFile(router=routers, link=spokes + ring))


def test_a_node_that_only_its_neighbours_tell_of_is_one_incident_and_the_first_cause() -> None:
    """Each sees its own port to it go down, and what ran over that; none is next to another by these."""
    world = AlarmWorld(network=star())
    far = (1, 7, 4, 10, 2, 8, 5, 11, 3, 9, 6, 12)
    down = [world.report("linkDown", f"p{i}:1", "critical") for i in far]
    felt = [world.report("ospfNbrDown", f"p{i}:1") for i in far]
    found = newest(
        world,
        world.second(*down[:5]),
        world.second(*down[5:]),
        world.second(*felt, seconds=5),
        world.second(world.report("nodeUnreachable", "hub"), seconds=30),
        world.second(seconds=120),
    )
    (told,) = [row for row in found.values() if row["state"] in ("raised", "updated")]
    assert len(told["alarms"]) == 25
    assert (told["causes"][0]["kind"], told["causes"][0]["entity"]) == ("node-down", "hub")
    assert told["causes"][0]["why"] == "all 12 of its links are down, and it says nothing"


def test_a_node_that_speaks_is_not_down_though_all_its_links_are() -> None:
    world = AlarmWorld(network=star(3))
    down = [world.report("linkDown", f"{node}:{port}", "critical")
            for i in (1, 2, 3) for node, port in ((f"p{i}", 1), ("hub", i))]  # fmt: skip
    found = newest(world, world.second(*down), world.second(seconds=20))
    (told,) = [row for row in found.values() if row["state"] == "raised"]
    assert told["causes"][0]["kind"] == "linkDown"


def test_links_of_one_node_that_go_down_minutes_apart_are_faults_of_their_own() -> None:
    world = AlarmWorld(network=star())
    found = [
        newest(world, world.second(world.report("linkDown", f"p{i}:1"), seconds=60))
        for i in (1, 5, 9)
    ]
    assert len({number for one in found for number in one}) == 3
    plain = AlarmWorld(network=network_of([("a", "b"), ("b", "c"), ("c", "a")], []))
    found = [
        newest(plain, plain.second(plain.report("linkDown", f"a:{name}"), seconds=900))
        for name in ("ge-1", "ge-2")
    ]
    assert len({number for one in found for number in one}) == 2, "nor where ports are not known"


def test_power_and_other_links_behind_a_cut_are_faults_of_their_own() -> None:
    world = AlarmWorld(network=chain_network())
    cut = [world.report("linkDown", entity, "critical") for entity in ("a3:2", "a4:1")]
    world.second(*cut, world.report("bgpDown", "a6"))
    world.second(seconds=100)
    behind = (
        world.report("mainsFailure", "a11"),
        world.report("linkDown", "a7:2"),
        world.report("bgpDown", "a5"),
    )
    world.second(*behind)
    world.second(seconds=20)
    grown = {one["title"]: one["alarms_count"]
             for one in world.stage.incidents.listed(open_only=True, limit=9)}  # fmt: skip
    assert grown == {"linkDown on a3:2": 4, "mainsFailure on a11": 1, "linkDown on a7:2": 1}


def test_a_symptom_that_is_back_is_one_of_the_fault_that_is_there_now() -> None:
    """A session fell with one link, and falls again with another an hour later."""
    world = AlarmWorld(network=star())
    said = [("linkDown", "p1:1"), ("bgpDown", "p1")]
    world.second(*(world.report(kind, entity) for kind, entity in said), seconds=20)
    world.second(*(world.report(kind, entity, "cleared") for kind, entity in said), seconds=3600)
    world.second(world.report("linkDown", "p1:2"), seconds=2)
    (now,) = newest(
        world, world.second(world.report("bgpDown", "p1")), world.second(seconds=20)
    ).values()
    assert (now["title"], len(now["alarms"])) == ("linkDown on p1:2", 2)


def test_two_faults_at_once_are_two_incidents() -> None:
    world = AlarmWorld(network=chain_network())
    first = [world.report("linkDown", "c2:1", "critical"), world.report("bgpDown", "c2")]
    second = [world.report("linkDown", "a5:2", "critical"), world.report("bgpDown", "a6")]
    found = newest(world, world.second(*first, *second), world.second(seconds=20))
    told = [row for row in found.values() if row["state"] == "raised"]
    assert sorted(len(row["alarms"]) for row in told) == [2, 2]


def test_people_look_at_what_they_were_told_of_the_root_first() -> None:
    world = AlarmWorld(network=chain_network())
    lost = [world.report("bgpDown", "a6"), world.report("linkDown", "a5:2", "critical")]
    world.second(*lost)
    assert world.stage.incidents.listed(open_only=False, limit=10) == []  # nobody was told yet
    world.second(seconds=20)
    (shown,) = world.stage.incidents.listed(open_only=True, limit=10)
    assert (shown["state"], shown["severity"], shown["alarms_count"]) == ("open", "critical", 2)
    assert [alarm["title"].split()[0] for alarm in shown["alarms"]] == ["linkDown", "bgpDown"]
    assert shown["impact"]["links"] == ["a5-a6"]
    assert shown["causes"][0]["kind"] == "linkDown"
    world.second(*(world.report(kind, entity, "cleared") for kind, entity in
                   (("bgpDown", "a6"), ("linkDown", "a5:2"))))  # fmt: skip
    world.second(seconds=200)
    assert world.stage.incidents.listed(open_only=True, limit=10) == []
    assert [one["state"] for one in world.stage.incidents.listed(open_only=False, limit=10)] == [
        "closed"
    ]


def test_a_hijack_and_an_attack_at_one_place_are_two_incidents_and_hijacks_are_one() -> None:
    network = FileNetworkMap(
        NetworkFile(
            router=[RouterEntry(name="r1", address="10.0.0.1")],
            prefix=[PrefixEntry(prefix="100.89.0.0/16", customer="acme", router="r1")],
        )
    )
    for order in (1, -1):
        world = AlarmWorld(network=network)
        given = [
            world.report("volumetric-attack", "100.89.16.0/24", "critical", source="tocsin"),
            world.report("subprefix-hijack", "100.89.0.0/24", "critical", source="routes"),
            world.report("subprefix-hijack", "100.89.1.0/24", "critical", source="routes"),
        ][::order]
        found = newest(
            world, *(world.second(one, seconds=2) for one in given), world.second(seconds=20)
        )
        told = [row for row in found.values() if row["state"] == "raised"]
        assert sorted(len(row["alarms"]) for row in told) == [1, 2]


def test_a_session_down_joins_the_node_that_its_words_name() -> None:
    world = AlarmWorld(network=chain_network())
    down = world.report("nodeDown", "c2", "critical")
    peer = world.report("bgpDown", "c0", title="BGP neighbor c2 is down")
    other = world.report("bgpDown", "a4", title="BGP neighbor x7 is down")
    found = newest(world, world.second(down, peer, other), world.second(seconds=20))
    assert sorted(len(row["alarms"]) for row in found.values()) == [1, 2]


def test_people_are_told_once_of_what_belongs_together_and_once_of_its_end() -> None:
    world = AlarmWorld(network=chain_network())
    rows = [world.report(kind, "c2") for kind in ("linkDown", "ospfNbrDown", "bgpDown")]
    told = world.notices(*rows) + world.notices(seconds=20)
    assert [(a.state, a.alarms_count, len(a.symptoms)) for a in told] == [("raised", 3, 2)]
    over = [world.report(kind, "c2", "cleared") for kind in ("linkDown", "ospfNbrDown")]
    assert world.notices(*over) == []
    ends = world.notices(world.report("bgpDown", "c2", "cleared"))
    assert [(a.state, a.id) for a in ends] == [("cleared", told[0].id)]


def test_an_incident_keeps_its_key_when_its_cause_is_found_later() -> None:
    world = AlarmWorld(network=chain_network())
    (first,) = [*world.notices(world.report("bgpDown", "c2")), *world.notices(seconds=20)]
    power = world.report("psu", "c2", "critical", probable_cause="powerProblem")
    (later,) = world.notices(power, seconds=5)
    assert (later.id, later.incident, later.state) == (first.id, first.incident, "updated")
    assert later.title == "psu on c2"
    assert later.severity == "critical"


def test_symptoms_on_many_nodes_that_were_told_are_one_incident_with_a_late_cause() -> None:
    world = AlarmWorld(network=chain_network())
    told = newest(
        world,
        world.second(*(world.report("bgpDown", f"a{i}") for i in range(5, 11))),
        world.second(seconds=20),
    )
    cut = [
        world.report("linkDown", face, "critical", probable_cause="lossOfSignal")
        for face in ("a4:2", "a4:1")  # two links of one duct, a second apart
    ]
    found = newest(world, world.second(cut[0]), world.second(cut[1]), world.second(seconds=20))
    (left,) = [row for row in found.values() if not row["parent"]]
    assert left["id"] in told  # no new ticket, and none that is part of itself
    assert left["causes"][0]["kind"] == "linkDown"
    (shown,) = world.stage.incidents.listed(open_only=True, limit=10)
    assert shown["alarms_count"] == 8


def test_title_and_cause_change_at_most_twice_after_the_first_minute() -> None:
    world = AlarmWorld(network=chain_network())
    world.notices(world.report("other", "c2"))
    titles = [a.title for a in world.notices(seconds=20)]
    for kind, cause in (
        ("load", "congestion"),
        ("bgp", "communicationsProtocolError"),
        ("los", "lossOfSignal"),
        ("card", "lineCardProblem"),
        ("psu", "powerProblem"),
    ):
        world.second(seconds=60)
        notices = world.notices(
            world.report(kind, "c2", "critical", probable_cause=cause), seconds=60
        )
        titles += [a.title for a in notices]
    assert len(dict.fromkeys(titles)) <= 3


@pytest.mark.parametrize(
    ("until", "seconds", "severity", "state"),
    [("clear", 60, "minor", "none"), ("worse", 60, "minor", "acknowledged"),
     ("worse", 60, "critical", "none"), ("worse", 7200, "minor", "none")],
)  # fmt: skip
def test_an_incident_that_returns_is_taken_on_as_its_alarm_is(
    until: str, seconds: int, severity: str, state: str
) -> None:
    world = AlarmWorld()
    world.notices(world.report("fan", "ams1", "minor"))
    (raised,) = world.notices(seconds=60)
    asked = world.act("acknowledge", incident=raised.incident, until=until, by="ann")
    assert world.notices(asked)[0].operator_state == "acknowledged"
    world.notices(world.report("fan", "ams1", "cleared"))
    world.notices(seconds=seconds)
    (again,) = world.notices(world.report("fan", "ams1", severity))
    assert (again.incident, again.state) == (raised.incident, "raised")
    alarm = world.stage.alarm(int(again.id, 16))
    assert alarm is not None
    assert (again.operator_state, alarm.operator_state) == (state, state)


def test_an_incident_is_no_longer_taken_on_until_worse_when_it_is_worse() -> None:
    world = AlarmWorld()
    world.notices(world.report("fan", "ams1", "minor"))
    (raised,) = world.notices(seconds=60)
    world.notices(world.act("acknowledge", incident=raised.incident, until="worse", by="ann"))
    (worse,) = world.notices(world.report("fan", "ams1", "critical"))
    assert (worse.severity, worse.operator_state) == ("critical", "none")


def test_a_manager_that_acknowledges_the_face_of_an_incident_acknowledges_it() -> None:
    world = AlarmWorld()
    world.notices(world.report("fan", "ams1", source="netcool") | {"operator_state": "none"})
    (raised,) = world.notices(seconds=60)
    (on,) = world.notices(
        world.report("fan", "ams1", source="netcool", detail={"owner": "bob"})
        | {"operator_state": "acknowledged", "operator": "bob"}
    )
    assert (on.operator_state, on.operator) == ("acknowledged", "bob")
    (off,) = world.notices(
        world.report("fan", "ams1", source="netcool") | {"operator_state": "none"}
    )
    assert (off.incident, off.operator_state) == (raised.incident, "none")


def test_an_incident_is_shelved_while_all_that_is_up_is_hidden() -> None:
    world = AlarmWorld()
    fan, psu = world.told(world.report("fan", "ams1"), world.report("psu", "ams1"), seconds=60)
    world.notices(world.act("merge", incidents=[fan.incident, psu.incident]), seconds=60)
    assert not world.notices(world.act("shelve", alarm=psu.id, seconds=600)), "one of two"
    (shelved,) = world.notices(world.act("shelve", alarm=fan.id, seconds=60))
    assert shelved.operator_state == "shelved"
    (back,) = world.notices(seconds=100)
    assert (back.state, back.operator_state) == ("updated", "none")
    world.notices(world.act("shelve", alarm=fan.id, seconds=60), seconds=10)
    (over,) = world.notices(
        world.report("fan", "ams1", "cleared"), world.report("psu", "ams1", "cleared")
    )
    assert (over.state, over.operator_state) == ("cleared", "none")


CUT = ("linkDown", "c:3", "critical")


def cut_world() -> AlarmWorld:
    """Return a ring a-b-c with d and e behind c, cut at c-d, and e hidden as a symptom."""
    pairs = [("a", "b"), ("b", "c"), ("c", "a"), ("c", "d"), ("d", "e")]
    world = AlarmWorld(network=network_of(pairs, []))
    world.told(world.report(*CUT, probable_cause="lossOfSignal"))
    world.told(seconds=300)
    (symptom,) = world.told(world.report("bgpDown", "e"))
    assert symptom.suppressed == "parent"
    return world


def test_what_is_still_up_when_its_parent_is_over_is_told_then() -> None:
    world = cut_world()
    world.told(world.report("linkDown", "c:3", "cleared"))
    assert world.stage.due_ns == world.now_ns + 15 * 1_000_000_000, "it may come back in a moment"
    assert not world.told(seconds=5)
    kept = Snapshot()
    world.stage.snapshot(kept)
    world.stage = world.make_stage()
    world.stage.restore(kept)
    (told,) = world.told(seconds=10)
    assert (told.entity, told.state, told.suppressed) == ("e", "updated", "")


def test_what_comes_back_with_its_parent_or_is_cut_off_again_is_not_told() -> None:
    world = cut_world()
    world.told(world.report("linkDown", "c:3", "cleared"))
    world.told(world.report("bgpDown", "e", "cleared"), seconds=10)
    assert not world.told(seconds=60)
    world = cut_world()
    world.told(world.report("linkDown", "c:3", "cleared"))
    world.told(world.report(*CUT, probable_cause="lossOfSignal"), seconds=10)
    assert not world.told(seconds=60)


def test_a_work_on_a_symptom_that_ends_leaves_it_a_symptom() -> None:
    world = cut_world()
    (hidden,) = world.told(world.act("maintenance", nodes=["e"], seconds=60, name="CRQ1"))
    assert hidden.suppressed == "planned-work"
    (symptom,) = world.told(seconds=100)
    assert symptom.suppressed == "parent"
    world.told(world.act("maintenance", nodes=["e"], seconds=60, name="CRQ2"))
    world.told(world.report("linkDown", "c:3", "cleared"))
    (told,) = world.told(seconds=100)
    assert told.suppressed == ""


def test_an_incident_is_open_while_anything_hard_is_up() -> None:
    world = AlarmWorld(network=chain_network())
    world.notices(world.report("linkDown", "c2:1", "critical"), world.report("bgpDown", "c2"))
    world.notices(seconds=20)
    assert world.notices(world.report("bgpDown", "c2", "cleared")) == []
    for _ in range(20):
        assert world.notices(world.report("linkDown", "c2:1", "critical"), seconds=3600) == []
    assert [a.state for a in world.notices(world.report("linkDown", "c2:1", "cleared"))] == [
        "cleared"
    ]


def test_the_end_of_an_incident_is_told_though_its_face_was_over_long_before() -> None:
    world = AlarmWorld()
    world.notices(world.report("fan", "ams1"), world.report("psu", "ams1"))
    (raised,) = world.notices(seconds=60)
    stays = {"fan": "psu", "psu": "fan"}[raised.kind]
    world.notices(world.report(raised.kind, "ams1", "cleared"))
    for _ in range(26):
        world.notices(world.report(stays, "ams1"), seconds=3600)
    assert world.stage.alarm(int(raised.id, 16)) is None, "it is forgotten"
    (over,) = world.notices(world.report(stays, "ams1", "cleared"))
    assert (over.incident, over.state) == (raised.incident, "cleared")


def test_so_is_that_of_an_incident_of_which_nothing_is_known_any_more() -> None:
    world = AlarmWorld(AlertingSettings(alarms_max=2))
    fan, psu = world.told(world.report("fan", "ams1"), world.report("psu", "ams1"))
    (raised,) = world.notices(seconds=60)
    stays = psu if raised.id == fan.id else fan
    world.notices(world.report(raised.kind, "ams1", "cleared"))
    world.notices(world.report("door", "zz9"))  # takes the place of the one that is over
    split = world.act("split", incident=raised.incident, alarms=[stays.id], by="ann")
    told = {one.incident: one for one in world.notices(split)}
    assert (told[raised.incident].state, told[raised.incident].kind) == ("cleared", raised.kind)


def test_what_comes_and_goes_while_it_waits_for_company_is_told_to_nobody() -> None:
    world = AlarmWorld()
    assert world.notices(world.report("bgpDown", "ams1"), seconds=2) == []
    assert world.notices(world.report("bgpDown", "ams1", "cleared")) == []
    assert world.notices(seconds=60) == []


def test_merged_by_hand_they_are_one_and_the_kinds_are_learned() -> None:
    world = AlarmWorld(network=chain_network())
    world.second(world.report("fan", "c2"), world.report("door", "a7"))
    told = world.notices(seconds=20)
    assert len(told) == 2
    before = world.stage.incidents.grouping.companions.opinion("fan", "door")
    notices = world.notices(world.act("merge", incidents=[a.incident for a in told], by="ann"))
    assert {(a.state, a.alarms_count) for a in notices} == {("updated", 2), ("cleared", 1)}
    (gone,) = (a for a in notices if a.parent)  # what was wrong still is: it is not over
    assert gone.explain["short"].startswith("MERGED ")
    assert f"; now part of incident {gone.parent}" in gone.explain["short"]
    assert world.stage.incidents.grouping.companions.opinion("fan", "door") > before


def test_a_merged_incident_stands_for_what_it_became_part_of() -> None:
    world = AlarmWorld(network=chain_network())
    reports = [world.report("fanFail", node) for node in ("c2", "a5", "a9")]
    a, b, c = newest(world, world.second(*reports), world.second(seconds=20))
    merge, now_ns = world.stage.incidents.merge, 1 << 62
    assert merge([a, b], now_ns, "ann")
    assert not merge([b, a], now_ns, "ann")
    assert merge([b, c], now_ns, "ann")
    (shown,) = world.stage.incidents.listed(open_only=True, limit=10)
    assert (int(shown["incident_id"], 16), shown["alarms_count"]) == (a, 3)


def test_closing_the_ticket_of_a_merged_incident_clears_nothing_of_the_one_that_goes_on() -> None:
    world = AlarmWorld(network=chain_network())
    world.second(world.report("fanFail", "c2"), world.report("doorOpen", "a7"))
    first, second = (a.incident for a in world.notices(seconds=20))
    world.second(world.act("merge", incidents=[first, second], by="ann"))
    world.second(world.act("close", incident=second, by="tickets"))
    (shown,) = world.stage.incidents.listed(open_only=True, limit=10)
    assert [alarm["up"] for alarm in shown["alarms"]] == [True, True]


def test_an_incident_that_is_named_twice_is_not_merged_with_itself() -> None:
    world = AlarmWorld(network=chain_network())
    found = newest(world, world.second(world.report("fanFail", "c2")), world.second(seconds=20))
    assert not world.stage.incidents.merge([*found, *found], 1 << 62, "ann")
    assert len(world.stage.incidents.listed(open_only=True, limit=10)) == 1


def test_a_merged_incident_reads_as_one_alarm_and_is_taken_on_when_all_of_it_is() -> None:
    world = AlarmWorld(network=chain_network())
    world.second(world.report("bgpDown", "c2"), world.report("linkDown", "a7:1", "critical"))
    session, link = sorted(world.notices(seconds=20), key=lambda a: a.kind)
    world.second(world.act("acknowledge", incident=session.incident, by="ann"))
    notices = world.notices(
        world.act("merge", incidents=[session.incident, link.incident], by="bob")
    )
    (left,) = (a for a in notices if a.state == "updated")
    assert (left.incident, left.title) == (session.incident, "linkDown on a7:1")
    assert (left.entity, left.kind, left.severity) == ("a7:1", "linkDown", "critical")
    assert left.operator_state == "none"  # nobody took on the link
    (over,) = (a for a in notices if a.state == "cleared")
    assert (over.incident, over.parent) == (link.incident, session.incident)


def test_a_merge_of_what_was_taken_on_stays_that() -> None:
    world = AlarmWorld(network=chain_network())
    world.second(world.report("fan", "c2"), world.report("door", "a7"))
    both = [a.incident for a in world.notices(seconds=20)]
    for one in both:
        world.second(world.act("acknowledge", incident=one, by="ann"))
    notices = world.notices(world.act("merge", incidents=both, by="bob"))
    assert [a.operator_state for a in notices if a.state == "updated"] == ["acknowledged"]


def told_incident(alerts: list[Alert]) -> dict[str, str]:
    return {alert.id: alert.incident for alert in alerts}


def test_alarms_that_went_to_another_incident_say_so() -> None:
    world = AlarmWorld(network=chain_network())
    raised = world.told(world.report("fan", "c2"), world.report("door", "a7"))
    fan, door = (alert.id for alert in raised)
    one, other = (a.incident for a in world.notices(seconds=20))
    first, second = (one, other) if told_incident(raised)[fan] == one else (other, one)
    changed = world.told(world.act("merge", incidents=[first, second], by="ann"))
    assert [(a.id, a.incident, a.state) for a in changed] == [(door, first, "updated")]
    (apart,) = world.told(world.act("split", incident=first, alarms=[door], by="ann"))
    assert apart.id == door
    assert apart.incident not in (first, second)


def test_an_incident_that_flaps_says_so_and_keeps_its_title() -> None:
    world = AlarmWorld()
    told = []
    for _ in range(12):
        told += world.notices(world.report("linkDown", "ams1"), seconds=20)
        told += world.notices(world.report("linkDown", "ams1", "cleared"), seconds=20)
    assert {alert.title for alert in told} == {"linkDown on ams1"}
    assert told[-1].state != "cleared"
    assert "it flaps" in told[-1].explain["why"][-1]


def test_alarms_of_an_incident_that_a_cause_took_in_say_so() -> None:
    world = AlarmWorld(network=chain_network())
    early = [world.report("bgpDown", f"a{i}") for i in (7, 9, 11)]
    told = world.told(*early) + world.told(seconds=20)
    assert len({alert.incident for alert in told}) == 3
    for face in ("a4:2", "a4:1"):
        cut = world.report("linkDown", face, "critical", probable_cause="lossOfSignal")
        told += world.told(cut)
    told += world.told(seconds=20)
    (shown,) = world.stage.incidents.listed(open_only=True, limit=10)
    assert shown["alarms_count"] == 5
    for alert in {alert.id: alert for alert in told}.values():  # the last of each
        alarm = world.stage.alarm(int(alert.id, 16))
        assert alarm is not None
        assert (alert.incident, alert.suppressed) == (shown["incident_id"], alarm.suppressed)


def test_split_by_hand_they_are_two_and_stay_two() -> None:
    world = AlarmWorld(network=chain_network())
    world.second(world.report("fan", "c2"), world.report("door", "c2"))
    (one,) = world.notices(seconds=20)
    door = next(
        f"{number:016x}"
        for number, member in world.stage.incidents.all[int(one.incident, 16)].members.items()
        if member.kind == "door"
    )
    notices = world.notices(world.act("split", incident=one.incident, alarms=[door], by="ann"))
    notices += world.notices(seconds=20)
    assert len({a.incident for a in notices}) == 2
    assert world.stage.incidents.grouping.companions.opinion("fan", "door") < 0
    # The next pair is told apart by itself.
    world.second(world.report("fan", "c3"), world.report("door", "c3"), seconds=4000)
    assert len(world.notices(seconds=20)) == 2


def test_one_split_does_not_undo_what_was_learned_of_two_kinds() -> None:
    """A session fell with its link a dozen times; then somebody splits the two by mistake."""
    world = AlarmWorld(network=star())

    def fall(leaf: int) -> list[dict[str, Any]]:
        world.second(
            world.report("linkDown", f"p{leaf}:2", "critical"), world.report("bgpDown", f"p{leaf}")
        )
        world.second(seconds=20)
        return world.stage.incidents.listed(open_only=True, limit=9)

    def end(leaf: int) -> None:
        world.second(*(world.report(kind, entity, "cleared")
                       for kind, entity in (("linkDown", f"p{leaf}:2"), ("bgpDown", f"p{leaf}"))))  # fmt: skip
        world.second(seconds=4000)

    for turn in range(14):
        assert [one["alarms_count"] for one in fall(turn % 7 + 1)] == [2]
        end(turn % 7 + 1)
    (mistaken,) = fall(8)
    bgp = next(one["id"] for one in mistaken["alarms"] if one["title"].startswith("bgp"))
    world.second(world.act("split", incident=mistaken["incident_id"], alarms=[bgp], by="ann"))
    assert len(world.stage.incidents.listed(open_only=True, limit=9)) == 2
    end(8)
    assert [one["alarms_count"] for one in fall(10)] == [2]


def test_what_was_merged_by_hand_takes_what_comes_later() -> None:
    world = AlarmWorld(network=chain_network())
    world.second(world.report("linkDown", "c2:1", "critical"), world.report("doorOpen", "a5"))
    world.second(seconds=20)
    told = world.stage.incidents.listed(open_only=True, limit=9)
    world.second(world.act("merge", incidents=[one["incident_id"] for one in told], by="ann"))
    world.second(world.report("ospfNbrDown", "c2:1"), seconds=20)
    (one,) = world.stage.incidents.listed(open_only=True, limit=9)
    assert one["alarms_count"] == 3


def test_redundancy_left_is_told() -> None:
    world = AlarmWorld()
    world.second(*(world.report("linkDown", f"{router}:1") for router in ("ams1", "fra2")))
    (down,) = world.notices(seconds=20)
    left = down.explain["impact"]["redundancy"]
    assert [one["if"] for one in left] == ["ams1-lon1", "fra2-lon1"]


def test_impact_names_customers_services_and_capacity_behind() -> None:
    routers = [
        RouterEntry(name="a", address="192.0.2.1"),
        RouterEntry(name="b", address="192.0.2.2"),
        RouterEntry(name="c", address="192.0.2.3", customers=["hospital"], services=["voice"]),
    ]
    links = [
        LinkEntry(name="a-b", a="a", a_index=1, b="b", b_index=1, services=["vpn-17"]),
        LinkEntry(name="b-c", a="b", a_index=2, b="c", b_index=1, services=["vpn-18"]),
    ]
    faces = [
        InterfaceEntry(router="c", index=1, name="et-1", link="b-c", speed=100_000),
        InterfaceEntry(router="c", index=9, name="ge-9", customer="bank", speed=1_000),
        InterfaceEntry(router="a", index=9, name="ge-9", customer="school", speed=1_000),
    ]
    prefix = PrefixEntry(prefix="203.0.113.0/24", router="c", customer="shop", services=["web"])
    network = FileNetworkMap(
        NetworkFile(router=routers, link=links, interface=faces, prefix=[prefix])
    )
    world = AlarmWorld(network=network)
    world.second(world.report("linkDown", "c:et-1", "critical", probable_cause="lossOfSignal"))
    (cut,) = world.notices(seconds=20)
    impact = cut.explain["impact"]
    assert impact["customers"] == ["bank", "hospital", "shop"]
    assert impact["services"] == ["voice", "vpn-18", "web"]
    assert (impact["capacity_bits_per_second"], impact["capacity_behind_bits_per_second"]) == (
        100_000, 1_000,
    )  # fmt: skip
    world.second(world.report("linkDown", "a:ge-9", "major", probable_cause="lossOfSignal"))
    (port,) = world.notices(seconds=20)
    assert port.explain["impact"]["customers"] == ["school"]


def test_a_change_just_before_is_the_first_suspect() -> None:
    world = AlarmWorld(network=chain_network())
    world.second(
        world.report("ciscoConfigManEvent", "c2", "warning", title="configured by joe"), seconds=30
    )
    world.second(world.report("bgpDown", "c2", probable_cause="communicationsProtocolError"))
    (told,) = [a for a in world.notices(seconds=20) if a.kind != "ciscoConfigManEvent"] or [None]
    causes = [c["kind"] for c in (told.explain["causes"] if told else [])]
    assert "change" in causes


def test_similar_incidents_of_the_past_and_what_ended_them() -> None:
    world = AlarmWorld(network=chain_network())
    world.second(world.report("psu", "c2"))
    (first,) = world.notices(seconds=20)
    world.second(world.act("feedback", incident=first.incident, by="ann", note="fuse replaced"))
    world.second(world.report("psu", "c2", "cleared"))
    world.second(world.report("psu", "a3"), seconds=90_000)
    (second,) = world.notices(seconds=20)
    assert second.explain["similar"][0]["id"] == first.incident
    assert second.explain["similar"][0]["ended"] == "fuse replaced"


def test_our_own_cut_joins_the_traps_about_it_and_not_another_cut() -> None:
    world = AlarmWorld()
    world.second(world.report("linkDown", "ams1:1", "critical"))
    rows = [world.silence(s) for link in ("ams1-fra2", "fra2-lon1") for s in world.ends(link)]
    found = newest(world, world.batches(rows))
    assert sorted(len(row["alarms"]) for row in found.values()) == [1, 2]


def test_our_own_cut_of_another_link_takes_no_traps_that_name_theirs() -> None:
    """Claims of one tick come by name: the first must not take what belongs to the second."""
    world = AlarmWorld()
    world.second(world.report("linkDown", "fra2:2", "critical"))
    rows = [world.silence(s) for link in ("ams1-fra2", "fra2-lon1") for s in world.ends(link)]
    found = newest(world, world.batches(rows))
    (pair,) = (row for row in found.values() if len(row["alarms"]) == 2)
    assert pair["title"].startswith("link fra2-lon1 is down")


def test_a_prefix_is_at_its_router_and_touches_its_customer() -> None:
    routers = [RouterEntry(name="a", address="192.0.2.1", owner="core team")]
    prefix = PrefixEntry(prefix="203.0.113.0/24", router="a", customer="shop", services=["web"])
    world = AlarmWorld(network=FileNetworkMap(NetworkFile(router=routers, prefix=[prefix])))
    world.second(
        world.report("flood", "203.0.113.64/26", "major", probable_cause="denialOfService")
    )
    (told,) = world.notices(seconds=20)
    assert told.explain["owner"] == "core team"
    assert told.explain["impact"]["customers"] == ["shop"]
    assert told.explain["impact"]["services"] == ["web"]


@pytest.mark.parametrize(
    ("kind", "layer", "link_down"),
    [("ETH_LOS", LINK, True), ("R_LOF", LINK, True), ("Interface down", LINK, True), ("LINK_FAILURE", LINK, True),
     ("close", OTHER, False), ("HW_FAN_FAIL", EQUIPMENT, False), ("BD_STATUS", EQUIPMENT, False),
     ("TEMP_OVER", EQUIPMENT, False), ("templateMissing", OTHER, False), ("bfdSessDown", PROTOCOL, False),
     ("LDP_DOWN", PROTOCOL, False), ("mplsTunnelDown", PROTOCOL, False), ("PSU_FAIL", POWER, False)],
)  # fmt: skip
def test_kinds_say_what_they_are_of_in_the_words_of_any_maker(
    kind: str, layer: int, link_down: bool
) -> None:
    nature = nature_of(Alarm(kind, "r1", source="traps"))
    assert (nature.layer, nature.link_down) == (layer, link_down)
