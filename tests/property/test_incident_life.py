"""Incidents whatever comes: calm titles, open while anything is up, each alarm in one, none lost."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry.batch import Batch
from telemetry.foreign_alarm import foreign_alarm_id
from telemetry.x733 import CLEARED
from tocsin.files.topologies import network_of
from tocsin.testing.alarms import AlarmWorld

PAIRS = [("a", "b"), ("b", "c"), ("c", "a"), ("c", "d"), ("d", "e")]
CAUSES = {
    "linkDown": "lossOfSignal", "psu": "powerProblem", "card": "lineCardProblem",
    "bgpDown": "communicationsProtocolError", "nodeDown": "other", "cpu": "congestion",
}  # fmt: skip
STEP = st.tuples(
    st.sampled_from(sorted(CAUSES)),
    st.sampled_from(["a", "b:1", "c", "c:3", "d", "d:1", "e"]),
    st.sampled_from(["critical", "major", "minor", CLEARED, CLEARED]),
    st.sampled_from([1, 5, 20, 70, 400]),  # seconds until the next
)


def rows(batches: list[Batch]) -> list[tuple[int, int, str, str]]:
    """Return (incident, changed_ns, state, title) of what people are told of incidents."""
    made: list[tuple[int, int, str, str]] = []
    for batch in batches:
        if batch.schema.name == "incident":
            numbers, times = batch["incident_id"].tolist(), batch["changed_ns"].tolist()
            made += zip(numbers, times, batch.texts("state"), batch.texts("title"), strict=True)
    return made


@given(st.lists(STEP, min_size=5, max_size=60))
@settings(max_examples=60, deadline=None)
def test_titles_are_calm_and_nothing_closes_over_an_alarm_that_is_up(
    steps: list[tuple[str, str, str, int]],
) -> None:
    world = AlarmWorld(network=network_of(PAIRS, []))
    told: dict[int, list[tuple[int, str]]] = {}
    seen: set[int] = set()
    for kind, entity, severity, seconds in steps:
        report = world.report(kind, entity, severity, probable_cause=CAUSES[kind])
        made = rows(world.second(report)) + rows(world.second(seconds=seconds))
        for number, at_ns, state, title in made:
            if state in ("raised", "updated"):
                told.setdefault(number, []).append((at_ns, title))
        seen.add(foreign_alarm_id("traps", kind, entity))
        _is_sound(world, seen)
    for titles in told.values():
        after = [title for at_ns, title in titles if at_ns - titles[0][0] > 60_000_000_000]
        before = [title for at_ns, title in titles if at_ns - titles[0][0] <= 60_000_000_000]
        calm = [before[-1], *after]
        assert sum(a != b for a, b in zip(calm[:-1], calm[1:], strict=True)) <= 2


def _is_sound(world: AlarmWorld, seen: set[int]) -> None:
    incidents: dict[int, Any] = world.stage.incidents.all
    home: dict[int, int] = {}
    for number, incident in incidents.items():
        if incident.parent:
            continue
        for alarm in incident.members:
            up = world.stage.alarm(alarm)
            if up is not None and up.incident == number:
                assert home.setdefault(alarm, number) == number, "one alarm, one incident"
                assert not up.up or incident.open, "it closed while something under it is up"
    for alarm in seen:
        known = world.stage.alarm(alarm)
        assert known is None or not known.up or alarm in home, "what is up is in an incident"
