"""Found, cause right, false: the definitions, at their edges."""

from typing import Any

import pytest

from tocsin.demo.scoring import judge, table
from tocsin.demo.traffic import Fault

SECOND = 1_000_000_000
TICK = 5 * SECOND
CUT = Fault("link-cut", "ams1-fra2", 100 * SECOND, 400 * SECOND, ("ams1", "fra2"))
LEAK = Fault("slow-leak", "100.64.0.0/24", 1000 * SECOND, 8200 * SECOND)


def alert(
    entity: str, at: int, *, kind: str = "link-cut", cause: str = "", state: str = "raised"
) -> dict[str, Any]:
    return {
        "id": f"{kind} {entity}", "state": state, "kind": kind, "entity": entity, "raised_ns": (at - 5) * SECOND,
        "changed_ns": (at + 1) * SECOND,  # its tick ends at `at`, and closes a second later
        "title": f"{kind} {entity}",
        "explain": {"causes": [{"kind": kind, "entity": cause or entity}]},
    }  # fmt: skip


def run(*alerts: dict[str, Any], faults: tuple[Fault, ...] = (CUT,), until: int = 10_000) -> Any:
    return judge(faults, alerts, tick_ns=TICK, lateness_ns=SECOND, until_ns=until * SECOND)


@pytest.mark.parametrize(
    ("at", "found"),
    [(105, True), (115, True), (120, False), (100, False)],
    ids=["first-tick", "third-tick", "fourth-tick", "before-it-began"],
)
def test_found_within_three_ticks(at: int, found: bool) -> None:
    assert run(alert("ams1-fra2", at)).found == int(found)


def test_a_start_inside_a_tick_counts_from_the_next_whole_one() -> None:
    cut = Fault("link-cut", "ams1-fra2", 102 * SECOND, 400 * SECOND)
    assert run(alert("ams1-fra2", 120), faults=(cut,)).found == 1
    assert run(alert("ams1-fra2", 125), faults=(cut,)).found == 0


def test_delay_counts_until_the_alert_leaves() -> None:
    assert run(alert("ams1-fra2", 110)).judged[0].delay_seconds == 11.0


def test_an_affected_entity_finds_but_names_no_cause() -> None:
    score = run(alert("ams1", 110, kind="deviation"))
    assert (score.found, score.cause_right) == (1, 0)
    assert run(alert("par1", 110, kind="deviation")).found == 0


def test_right_cause_may_stand_on_another_entitys_alarm() -> None:
    assert run(alert("ams1", 110, cause="ams1-fra2")).cause_right == 1
    assert run(alert("ams1-fra2", 110, cause="ams1-lon1")).cause_right == 0


def test_slow_leak_has_until_its_end() -> None:
    leak = alert("100.64.0.0/24", 8200, kind="slow-leak")
    assert run(leak, faults=(LEAK,)).found == 1
    late = alert("100.64.0.0/24", 8205, kind="slow-leak")
    assert run(late, faults=(LEAK,)).found == 0


def predicted(entity: str, at: int, *, state: str = "raised", outcome: str = "") -> dict[str, Any]:
    made = alert(entity, at, kind="predicted", state=state)
    made["explain"]["forecast"] = {
        "outcome": outcome, "made_ns": 2000 * SECOND, "ended_ns": 5000 * SECOND if outcome else 0,
    }  # fmt: skip
    return made


def test_a_slow_fault_is_predicted_where_a_prediction_came_true() -> None:
    told = predicted(LEAK.entity, 2000)
    came = predicted(LEAK.entity, 5000, state="changed", outcome="hit")
    score = run(told, came, faults=(LEAK,))
    assert score.judged[0].lead_seconds == 3000
    assert score.predictions == (1, 1)
    assert "50 min before" in table(score)
    score = run(told, faults=(LEAK,))
    assert score.judged[0].lead_seconds == 0
    assert score.predictions == (1, 0)


def test_false_is_what_overlaps_no_fault_nor_its_aftermath() -> None:
    assert len(run(alert("par1", 60)).false) == 1
    assert len(run(alert("par1", 650)).false) == 0  # began before 400 + 300
    assert len(run(alert("par1", 710)).false) == 1
    assert len(run(alert("par1", 60, state="cleared")).false) == 0


def test_an_alarm_that_names_another_place_during_a_fault_is_told() -> None:
    wrong = alert("par1-lon1", 110)
    victim = alert("par1-lon1", 110, kind="deviation", cause="ams1-fra2")
    victim["explain"]["causes"][0]["kind"] = "link-cut"
    score = run(wrong, victim, alert("fra2", 110, kind="deviation"))
    assert score.elsewhere == (wrong,)
    assert score.false == ()
    assert 'beside a fault: "link-cut par1-lon1"' in table(score)


def test_a_flash_crowd_is_neither_to_be_found_nor_an_excuse() -> None:
    crowd = Fault("flash-crowd", "100.64.0.0/24", 0, 900 * SECOND)
    score = run(alert("100.64.0.0/24", 110, kind="volumetric-attack"), faults=(crowd,))
    assert score.judged == ()
    assert len(score.false) == 1


def test_a_fault_that_could_not_be_found_in_time_is_not_judged() -> None:
    score = run(until=112)
    assert (score.judged, score.unjudged) == ((), (CUT,))
    assert "ams1-fra2  too soon" in table(score)
    assert "0 of 0 faults found" in table(score)
    assert "1 began too shortly before the end to be judged" in table(score)
    assert len(run(until=116).judged) == 1


def test_a_fault_that_was_found_at_once_counts_though_the_end_was_near() -> None:
    scan = Fault("brute-force", "ams1", 100 * SECOND, 120 * SECOND, detail={"class": "brute-force"})
    score = run(alert("ams1", 110, kind="brute-force"), faults=(scan,), until=120)
    assert (score.found, score.cause_right, score.unjudged) == (1, 1, ())


def test_table_says_it_all() -> None:
    text = table(run(alert("ams1-fra2", 110), alert("par1", 60)))
    assert "1 of 1 faults found, cause right for 1, 1 false" in text
    assert "11 s" in text
    assert 'false: "link-cut par1"' in text
    assert "NO" in table(run())
