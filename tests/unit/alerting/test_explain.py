"""What an alert says for itself, word for word: owner, runbook, what changed before, 300 characters."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alerting.config import AlertingSettings, RunbookSettings
from alerting.incidents.explain import SHORT_CHARACTERS_MAX, short
from alerting.words.alert import Alert
from alerting.words.wording import facts, story
from correlator.tables.network_map import FileNetworkMap, NetworkFile, RouterEntry, SiteEntry
from telemetry.errors import ConfigError
from tests.unit.alerting.test_causes import attack, cut
from tocsin.testing.alarms import AlarmWorld, flood

RUNBOOKS = {
    "links": RunbookSettings(url="https://wiki/${kind}?at=${entity}", kinds=("link*", "if*")),
    "traps": RunbookSettings(url="https://wiki/traps", sources=("traps",), entities=("ams*",)),
}
LINKS_URL = "https://tocsin.example.net/"


def world(**settings: Any) -> AlarmWorld:
    return AlarmWorld(AlertingSettings(runbooks=RUNBOOKS, **settings))


def text(alert: Alert) -> str:
    return str(alert.explain["short"])


SILENT = "exporter ams1 is silent: no record for 10 s, 40 records/s expected"
FLOOD = "DNS amplification on 198.51.100.7 in 198.51.100.0/24: 1.2 Gbit/s, 8 Mbit/s expected"
BAND = "traffic of ams1:et-0/0/1 out above its band: 7.2 kbit/s, 800 bit/s expected (640 bit/s to 960 bit/s)"
COMMIT = "before: traps: commit 77 by bob on ams1, 20 s before the first sign"
RUNBOOK = "https://wiki/linkDown?at=ams1%3Aet-0%2F0%2F1"


def test_a_cut_link_on_a_phone_and_in_a_ticket() -> None:
    made = world(links_url=LINKS_URL)
    (alert,) = made.tick(cut(made))
    assert text(alert) == (
        "MAJOR link ams1-fra2 is down: 2 links carry its traffic, since 14 Nov 22:13 UTC; 0 flows/s, 80 flows/s"
        " expected; new; certain: the network itself says so; cause: every end that we see fell silent, the"
        " routers themselves did not; owner transmission; https://wiki/link-cut?at=ams1-fra2"
    )
    told = alert.explain
    assert (told["owner"], told["growing"], told["changed_before"]) == ("transmission", False, [])
    lines = story(alert).splitlines()
    assert "Owner: transmission" in lines
    assert "Runbook: https://wiki/link-cut?at=ams1-fra2" in lines
    link = f"https://tocsin.example.net/api/v1/alarms/{alert.id}/picture.svg"
    assert f"Picture: {link}" in lines


def test_an_attack_on_a_phone() -> None:
    made = world()
    series = made.series("destination_prefix", destination_prefix="198.51.100.0/24")
    made.samples[series] = flood()
    (alert,) = [a for _ in range(2) for a in made.tick([attack(made, series)])]
    assert text(alert) == (
        f"CRITICAL {FLOOD}, since 14 Nov 22:13 UTC; new; sure; cause: DNS amplification, 100% of the"
        " sample; owner core team"
    )


def test_a_silent_exporter_on_a_phone_and_its_end() -> None:
    made = world()
    series = made.series("exporter", exporter="127.1.0.1")
    (alert,) = made.tick([made.silence(series)])
    assert text(alert) == (
        f"MAJOR {SILENT}, since 14 Nov 22:13 UTC; new; certain: the network itself says so; cause: all its"
        " streams fell silent at once; owner core team; do: reach ams1; check its flow export and the path"
        " to this collector"
    )
    (over,) = [a for _ in range(3) for a in made.tick()]
    assert text(over) == (f"CLEARED {SILENT}, at 14 Nov 22:13 UTC; it lasted 20 s; owner core team")
    assert over.explain["trend"] == "over"


def test_an_attack_seen_by_its_flows_has_no_band_in_octets() -> None:
    """Actual and expected are bit/s; the band of what found it is one of flows."""
    made = world()
    series = made.series("destination_prefix", destination_prefix="198.51.100.0/24")
    made.samples[series] = flood()
    rate = {"octets_per_second": 1.5e8, "expected_octets_per_second": 1e6}
    row = made.anomaly(
        series, "attack", measure="flows", actual=31.2, expected=1.1, upper=2.6, detail=rate
    )
    (alert,) = [a for _ in range(2) for a in made.tick([row])]
    assert (alert.explain["unit"], alert.explain["band"]) == ("By/s", [0.0, 0.0])
    assert "31.2 flows/s, 1.1 flows/s expected" in alert.explain["why"]
    assert facts(alert)["actual"] == "1.2 Gbit/s"
    assert "band" not in facts(alert)


def test_what_is_over_says_nothing_that_held_only_while_it_lasted() -> None:
    made = world(deviation_ticks=2)
    row = made.anomaly(made.interface("ams1", 1), "baseline", score=5.0)
    (alert,) = [a for _ in range(2) for a in made.tick([row])]
    lines = story(alert).splitlines()
    assert "Actual: 7.2 kbit/s" in lines
    assert "Band: 640 bit/s to 960 bit/s" in lines
    (over,) = [a for _ in range(3) for a in made.tick()]
    said = [line.partition(":")[0] for line in story(over).splitlines()]
    assert not {"Actual", "Expected", "Band", "Sure", "Do", "Trend"}.intersection(said)
    assert {"Since", "Cleared", "Why", "Owner"}.issubset(said)


def test_a_deviation_on_a_phone() -> None:
    made = world(deviation_ticks=2)
    row = made.anomaly(made.interface("ams1", 1), "baseline", score=5.0)
    (alert,) = [a for _ in range(2) for a in made.tick([row])]
    assert text(alert) == (
        f"WARNING {BAND}, since 14 Nov 22:13 UTC; new; sure; cause: no rule explains it; owner"
        " transmission; do: compare with changes and works around ams1:et-0/0/1"
    )


def test_a_foreign_alarm_says_what_changed_before_and_whether_it_grows() -> None:
    made = world()
    made.second(made.report("configChange", "ams1", title="commit 77 by bob"), seconds=20)
    (alert,) = made.told(made.report("linkDown", "ams1:et-0/0/1", "minor"), seconds=20)
    said = f"certain: traps says so; {COMMIT}; owner transmission; {RUNBOOK}"
    since = "linkDown on ams1:et-0/0/1, since 14 Nov 22:14 UTC"
    assert text(alert) == f"MINOR {since}; new; {said}"
    (worse,) = made.told(made.report("linkDown", "ams1:et-0/0/1", "critical"))
    assert text(worse) == f"CRITICAL {since}; growing; {said}"
    assert worse.explain["growing"]
    (better,) = made.told(made.report("linkDown", "ams1:et-0/0/1", "warning"))
    assert text(better) == f"WARNING {since}; shrinking; {said}"
    (over,) = made.told(made.report("linkDown", "ams1:et-0/0/1", "cleared"))
    assert text(over) == (
        f"CLEARED linkDown on ams1:et-0/0/1, at 14 Nov 22:14 UTC; it lasted 3 s; owner transmission; {RUNBOOK}"
    )


def test_an_incident_grows_and_shrinks_by_its_alarms() -> None:
    made = world(links_url=LINKS_URL)
    made.second(
        made.report("linkDown", "ams1:et-0/0/1", "critical"),
        made.report("linkDown", "fra2:et-0/0/1"), made.report("bgpDown", "fra2"),
    )  # fmt: skip
    (first,) = made.notices(seconds=30)
    said = f"certain: traps says so; cause: the deepest fault of 3 alarms; owner transmission; {RUNBOOK}"
    since = "CRITICAL linkDown on ams1:et-0/0/1, since 14 Nov 22:13 UTC"
    assert text(first) == f"{since}; 3 alarms; new; {said}"
    link = f"https://tocsin.example.net/api/v1/incidents/{first.incident}/picture.svg"
    assert first.explain["picture"] == link
    (more,) = made.notices(*(made.report(f"x{i}", "fra2") for i in range(9)), seconds=100)
    assert text(more) == f"{since}; 12 alarms; growing; {said.replace('of 3', 'of 12')}"
    assert (more.explain["alarms"], more.explain["alarms_up"]) == (12, 12)
    gone = [made.report(f"x{i}", "fra2", "cleared") for i in range(9)]
    acted = made.act("acknowledge", incident=first.incident, by="ann")
    assert [n.explain["trend"] for n in made.notices(*gone, acted, seconds=100)] == ["shrinking"]
    gone = [made.report("linkDown", e, "cleared") for e in ("ams1:et-0/0/1", "fra2:et-0/0/1")]
    (over,) = made.notices(*gone, made.report("bgpDown", "fra2", "cleared"))
    assert text(over) == (
        f"CLEARED linkDown on ams1:et-0/0/1, at 14 Nov 22:17 UTC; it lasted 4 min; 12 alarms;"
        f" owner transmission; {RUNBOOK}"
    )


@pytest.mark.parametrize(
    ("name", "owner"),
    [
        ("ams1-fra2", "transmission"), ("ams1:et-0/0/1", "transmission"), ("ams1", "core team"),
        ("ams1:et-0/0/2", "core team"), ("lon1", ""), ("unknown", ""),
    ],
)  # fmt: skip
def test_the_owner_is_that_of_the_link_or_the_node(name: str, owner: str) -> None:
    made = world()
    (alert,) = made.told(made.report("fan", name))
    assert alert.explain["owner"] == owner


def test_a_router_without_an_owner_is_its_sites() -> None:
    routers = [RouterEntry(name="a", address="::1", site="S"), RouterEntry(name="b", address="::2")]
    made = FileNetworkMap(NetworkFile(router=routers, site=[SiteEntry(name="S", owner="field")]))
    assert [made.team_of(name) for name in ("a", "b", "c")] == ["field", "", ""]


def test_the_first_runbook_that_matches_counts() -> None:
    made = world()
    rows = [made.report("linkDown", "ams1"), made.report("fan", "ams1"), made.report("fan", "fra2")]
    rows += [made.report("fan", "ams1", source="netcool", severity="minor")]
    links = [a.explain["runbook"] for a in made.told(*rows)]
    assert links == ["https://wiki/linkDown?at=ams1", "https://wiki/traps", "", ""]


def test_a_runbook_with_a_hole_that_does_not_exist_is_refused() -> None:
    bad = {"x": RunbookSettings(url="https://wiki/${kin}")}
    with pytest.raises(ConfigError, match=r"alerting\.runbooks\.x: \$\{kin\} is no field"):
        AlarmWorld(AlertingSettings(runbooks=bad))


words = st.text(max_size=400)


@given(words, words, words, words, st.floats(allow_nan=False), st.booleans())
def test_a_short_text_is_short_and_one_line_whatever_it_is_made_of(
    title: str, owner: str, why: str, link: str, value: float, up: bool
) -> None:
    told = {
        "owner": owner, "actual": value, "expected": 1.0, "unit": "By/s", "sure": why, "do": title,
        "changed_before": [why], "causes": [{"why": owner}], "runbook": link, "alarms": 3,
    }  # fmt: skip
    made = short(told, title=title, severity="major", up=up, since_ns=10**18, over_ns=10**18)
    assert len(made) <= SHORT_CHARACTERS_MAX
    assert "\n" not in made
