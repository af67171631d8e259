"""The routing tree: which routes an alarm takes, at which hours, and names that lead nowhere."""

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from alerting.config import AlertingSettings, RouteSettings, SinkSettings, TimesSettings
from alerting.outbox.routes import Router
from alerting.words.alert import Alert
from telemetry.errors import ConfigError
from tocsin.cli.route import route


def at(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp()) * 10**9


def alert(**fields: Any) -> Alert:
    known = {
        "id": "1", "change": "1-1-raised", "kind": "link-cut", "entity": "ams1-fra2",
        "state": "raised", "severity": "major", "title": "t", "changed_ns": at("2026-11-25T12:00+01:00"),
        "raised_ns": 1, "cleared_ns": 0, "occurrence": 1, "event_type": "communicationsAlarm",
        "probable_cause": "lossOfSignal", "explain": {},
    }  # fmt: skip
    return Alert(**(known | fields))  # type: ignore[arg-type]


def settings(
    routes: dict[str, dict[str, Any]], times: dict[str, dict[str, Any]] | None = None
) -> AlertingSettings:
    sinks = {name: SinkSettings(kind="stdout") for name in ("noc", "ip", "night", "chief", "all")}
    return AlertingSettings(
        sinks=sinks | {"grave": SinkSettings(kind="stdout", least_severity="critical")},
        routes={
            name: RouteSettings(
                **{("goes_on" if k == "continue" else k): v for k, v in one.items()}
            )
            for name, one in routes.items()
        },
        times={name: TimesSettings(**one) for name, one in (times or {}).items()},
    )


def told(made: AlertingSettings, **fields: Any) -> tuple[str, ...]:
    return Router(made).decide(alert(**fields)).sinks


def test_the_deepest_route_that_matches_decides() -> None:
    made = settings({
        "everything": {"to": ("noc",)},
        "links": {"under": "everything", "kinds": ("link-*",), "to": ("ip",)},
        "amsterdam": {"under": "links", "entities": ("ams*",)},
    })  # fmt: skip
    assert told(made, kind="port-scan") == ("noc",)
    assert told(made, entity="par1-lon1") == ("ip",)
    assert told(made) == ("ip",)  # names no sink of its own: those of the route above
    assert Router(made).decide(alert()).path == ("amsterdam",)


def test_the_first_of_siblings_decides_unless_it_lets_others_have_a_say() -> None:
    routes = {"a": {"to": ("noc",)}, "b": {"to": ("all",)}}
    assert told(settings(routes)) == ("noc",)
    routes["a"] = {"to": ("noc",), "continue": True}
    assert told(settings(routes)) == ("noc", "all")


def test_a_sinks_own_filter_still_holds() -> None:
    made = settings({"a": {"to": ("grave", "noc")}})
    assert told(made) == ("noc",)
    assert set(told(made, severity="critical")) == {"grave", "noc"}


def test_what_no_route_takes_is_told_to_nobody() -> None:
    assert told(settings({"a": {"severities": ("critical",), "to": ("noc",)}})) == ()


@pytest.mark.parametrize(("when", "sinks"), [
    pytest.param("2026-11-25T12:00+01:00", ("noc",), id="wednesday-noon"),
    pytest.param("2026-11-25T17:59+01:00", ("noc",), id="last-minute"),
    pytest.param("2026-11-25T18:00+01:00", ("all",), id="end-is-outside"),
    pytest.param("2026-11-25T23:00+01:00", ("night",), id="night-begins"),
    pytest.param("2026-11-26T05:59+01:00", ("night",), id="night-goes-on-past-midnight"),
    pytest.param("2026-11-28T12:00+01:00", ("all",), id="saturday"),
    pytest.param("2026-07-01T12:00+02:00", ("noc",), id="summer-time"),
    pytest.param("2026-07-01T07:30+02:00", ("all",), id="summer-time-before-eight"),
])  # fmt: skip
def test_hours_of_the_week_are_those_of_their_zone(when: str, sinks: tuple[str, ...]) -> None:
    office = {"days": ("mon", "tue", "wed", "thu", "fri"), "start": "08:00", "end": "18:00",
              "zone": "Europe/Amsterdam"}  # fmt: skip
    night = {"days": ("wed",), "start": "22:00", "end": "06:00", "zone": "Europe/Amsterdam"}
    made = settings(
        {"day": {"times": ("office",), "to": ("noc",)}, "late": {"times": ("night",), "to": ("night",)},
         "rest": {"to": ("all",)}},
        {"office": office, "night": night},
    )  # fmt: skip
    assert told(made, changed_ns=at(when)) == sinks


def test_escalation_is_named_with_its_minutes() -> None:
    made = settings({"a": {"to": ("noc",), "escalate_minutes": 15.0, "escalate_to": ("chief",)}})
    assert Router(made).decide(alert()).escalations == ((15.0, "chief"),)


@pytest.mark.parametrize(("routes", "times", "says"), [
    ({"a": {"to": ("nobody",)}}, {}, "no sink 'nobody'"),
    ({"a": {"under": "b"}}, {}, "no route 'b'"),
    ({"a": {"under": "b"}, "b": {"under": "a"}}, {}, "in a circle"),
    ({"a": {"times": ("x",)}}, {}, "no hours 'x'"),
    ({}, {"x": {"zone": "Mars/Olympus"}}, "no time zone"),
    ({}, {"x": {"start": "8"}}, "is no time of day"),
    ({}, {"x": {"end": "25:00"}}, "is no time of day"),
])  # fmt: skip
def test_names_that_lead_nowhere(routes: Any, times: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Router(settings(routes, times))


CONFIG = """
[alerting.sinks.pager]
kind = "stdout"
rate_per_minute = 10
[alerting.routes.grave]
severities = ["critical"]
to = ["pager"]
continue = true
escalate_minutes = 15
escalate_to = ["pager"]
"""


def test_route_test_says_who_is_told(tmp_path: Path) -> None:
    path = tmp_path / "t.toml"
    path.write_text(CONFIG)
    run = CliRunner().invoke(route, ["test", "-c", str(path), "--severity", "critical"])
    assert run.output.splitlines() == [
        f"configuration: {path}",
        "routes: grave",
        "told: pager (stdout, incidents), at most 10 raises a minute",
        "told after 15 minutes without acknowledgement: pager",
    ]
    assert run.exit_code == 0
    run = CliRunner().invoke(route, ["test", "-c", str(path), "--at", "2026-11-25T12:00:00Z"])
    assert run.output.splitlines()[1:] == ["routes: none matches", "told: nobody"]
    assert run.exit_code == 3


def test_route_test_refuses_a_kind_that_is_not_ours_and_says_how_alerts_are_grouped(
    tmp_path: Path,
) -> None:
    path = tmp_path / "t.toml"
    path.write_text(
        '[alerting.sinks.chat]\nkind = "stdout"\n[alerting.routes.all]\nto = ["chat"]\ngroup_by = ["site"]\n'
    )
    bad = CliRunner().invoke(route, ["test", "-c", str(path), "--kind", "link-kut"])
    assert bad.exit_code == 2
    assert "'link-kut' is none of Tocsin's own: link-cut" in " ".join(bad.output.split())
    foreign = CliRunner().invoke(
        route, ["test", "-c", str(path), "--kind", "linkDown", "--source", "traps"]
    )
    assert "told: chat (stdout, incidents), grouped by site after 30 s" in foreign.output
    assert "the defaults, no --config was given" in CliRunner().invoke(route, ["test"]).output


def test_a_sinks_own_filter_holds_for_escalations_and_route_test_names_it(tmp_path: Path) -> None:
    """A major alarm went to a chief who asked for critical ones alone, and `route test` said nothing of filters."""
    made = settings(
        {
            "all": {
                "to": ("noc", "grave"),
                "escalate_minutes": 5.0,
                "escalate_to": ("grave", "chief"),
            }
        }
    )
    major, critical = (Router(made).decide(alert(severity=one)) for one in ("major", "critical"))
    assert (major.sinks, major.escalations, major.unwanted) == (
        ("noc",),
        ((5.0, "chief"),),
        ("grave",),
    )
    assert (critical.sinks, critical.unwanted) == (("noc", "grave"), ())
    assert critical.escalations == ((5.0, "grave"), (5.0, "chief"))
    path = tmp_path / "t.toml"
    path.write_text(
        '[alerting.sinks.noc]\nkind = "stdout"\n'
        '[alerting.sinks.pager]\nkind = "stdout"\nleast_severity = "critical"\nkinds = ["link-cut"]\n'
        '[alerting.routes.all]\nto = ["noc", "pager"]\n'
    )
    run = CliRunner().invoke(route, ["test", "-c", str(path), "--severity", "major"])
    assert "not told: pager, whose own least_severity = critical, kinds = link-cut" in run.output
