"""Attacks of every security class over the demo's background: found, named, once, and nothing else."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from perf import security
from tests.support.demo_capture import SECOND, START_NS, write_demo_capture
from tocsin.cli import cli
from tocsin.demo.attacks import CLASSES, KINDS
from tocsin.demo.faults import make_fault, scripted
from tocsin.demo.network import load_demo_network
from tocsin.demo.settings import FOLDER
from tocsin.demo.simulate import START_NS as START
from tocsin.demo.simulate import run_days

NETWORK = load_demo_network()


def test_each_fast_class_is_found_by_name_within_three_ticks_and_told_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(security, "RECORDS_PER_SECOND", 60.0)
    judged, stray = security.day(7, quiet=False, hours=2.4, learned_days=1, slot_seconds=1_200)
    assert Counter(one.name for one in judged) == Counter(security.FAST)
    assert [one.name for one in judged if not one.found] == []
    assert all(one.delay_ticks <= 3.0 for one in judged)
    assert all(one.start_error_ticks <= 2.0 for one in judged)
    assert [one.others for one in judged if one.others] == []
    assert [title for title in stray if title.split(":")[0] in KINDS] == []


def test_the_demo_says_each_fault_of_security_and_nothing_beside_it() -> None:
    """Its own settings: history a tick each quarter of an hour, then ticks of 5 s, a fifth of them sFlow."""
    kinds = ("brute-force", "port-scan", "dns-tunnel", "spoofed-sources", "volumetric-attack")
    played = scripted(NETWORK, start_ns=START + 30 * SECOND, seed=4)
    faults = tuple(one for one in played if one.kind in (*kinds, "flash-crowd"))[:6]
    minutes = (faults[-1].end_ns - START) / 6e10 + 1.0
    score, alerts = run_days(
        days=1, hours=minutes / 60, seed=4, records_per_second=500.0, faults=faults, learned_days=4
    )
    assert {one.fault.kind for one in score.judged} == set(kinds)
    assert [one.fault.entity for one in score.judged if not one.cause_right] == []
    titles = [alert["title"] for alert in (*score.false, *score.elsewhere)]
    assert titles == [], "nothing is said beside the faults"
    assert all(alert["explain"]["do"] for alert in alerts)


@pytest.mark.timeout(1_800)
def test_recall_and_false_alerts_over_days(deep: bool) -> None:
    if not deep:
        pytest.skip("days with attacks and without: they run in make test-deep")
    every, falses = [], []
    for seed in (301, 302):
        every += security.day(seed, quiet=False)[0]
        falses += security.day(seed + 1000, quiet=True)[1]
    assert {one.name for one in every} == set(CLASSES)
    assert np.mean([one.found for one in every]) >= 0.9
    assert sum(title.split(":")[0] in KINDS for title in falses) <= 2  # one a day


@pytest.mark.parametrize(
    ("name", "words"), [("horizontal-scan", "horizontal scan from"), ("vertical-scan", "vertical scan from"),
                        ("brute-force", "brute force from")]
)  # fmt: skip
def test_an_engineer_replays_a_capture_and_reads_the_class(
    name: str, words: str, tmp_path: Path
) -> None:
    """A fresh start: nothing is known of what is usual."""
    random = np.random.default_rng(12)
    attack = make_fault(NETWORK, name, random, START_NS + 20 * SECOND, 40.0)
    attack.detail["flows_per_second"] = 30.0
    capture, settings = tmp_path / "case.pcapng", tmp_path / "tocsin.toml"
    write_demo_capture(capture, seconds=60, faults=(attack,), records_per_second=200.0)
    settings.write_text(
        f'[views]\ntick_seconds = 5.0\nlateness_seconds = 1.0\n[network]\nmap = "{FOLDER}/network.toml"\n'
    )
    done = CliRunner().invoke(cli, ["replay", str(capture), "-c", str(settings)])
    assert done.exit_code == 0, done.output
    alerts = [json.loads(line) for line in done.stdout.splitlines()]
    (alert,) = [a for a in alerts if a["kind"] in KINDS and a["state"] == "raised"]
    assert alert["kind"] == CLASSES[name][0]
    assert words in alert["title"]
    assert alert["explain"]["top_talkers"]
    assert "flow route" in alert["explain"]["do"]
