"""Dashboards for Grafana: their model, metrics that exist, how they get there; annotations of the sink."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from click.testing import CliRunner

from alerting.config import SinkSettings
from alerting.sinks import make_sink
from alerting.sinks.grafana import GrafanaOptions, annotation
from tests.support.grafana_server import TOKEN, GrafanaServer
from tocsin.cli.grafana import push
from tocsin.desk.grafana import dashboards
from tocsin.testing import checks_sink
from tocsin.testing.checks_sink import NOW_NS, parcel

ROOT = Path(__file__).parents[3]
METRICS = set(
    re.findall(r"^\| `(tocsin_\w+)`", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE)
)
BOARDS = {path.stem: json.loads(path.read_text("utf-8")) for path in dashboards()}


@pytest.fixture
def grafana() -> Iterator[GrafanaServer]:
    made = GrafanaServer(token=TOKEN)
    yield made
    made.stop()


@pytest.mark.parametrize("name", BOARDS)
def test_a_dashboard_is_whole_and_asks_for_metrics_that_exist(name: str) -> None:
    board = BOARDS[name]
    assert board["uid"].startswith("tocsin-")
    assert "tocsin" in board["tags"]
    panels: list[dict[str, Any]] = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
        assert panel["title"]
        for target in panel["targets"]:
            assert target["datasource"] == {"type": "prometheus", "uid": "tocsin"}
            named = set(re.findall(r"tocsin_\w+", target["expr"]))
            assert named
            assert named <= METRICS, named - METRICS
            assert target["expr"].count("(") == target["expr"].count(")")
    assert board["annotations"]["list"][0]["target"]["tags"] == ["tocsin"]


def test_dashboards_have_their_own_uids_and_the_provisioned_source_is_theirs() -> None:
    assert len({board["uid"] for board in BOARDS.values()}) == len(BOARDS) >= 2
    folder = ROOT / "deploy" / "grafana" / "provisioning"
    (source,) = yaml.safe_load((folder / "datasources" / "tocsin.yaml").read_text())["datasources"]
    assert (source["uid"], source["type"]) == ("tocsin", "prometheus")
    (provider,) = yaml.safe_load((folder / "dashboards" / "tocsin.yaml").read_text())["providers"]
    assert provider["type"] == "file"


def test_push_brings_them_and_a_second_push_replaces_them(
    grafana: GrafanaServer, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    ask = [grafana.url, "--token-file", str(token), "--folder", "noc"]
    for _ in range(2):
        done = CliRunner().invoke(push, ask, catch_exceptions=False)
        assert done.exit_code == 0
    assert f"alarms.json: {grafana.url}/d/tocsin-alarms/x" in done.output
    assert {body["folderUid"] for body in grafana.dashboards.values()} == {"noc"}
    assert set(grafana.dashboards) == {board["uid"] for board in BOARDS.values()}


@pytest.mark.parametrize(
    ("content", "said"), [("{", "no JSON"), ("{}", "needs uid and title"), ("", "Unauthorized")]
)
def test_what_cannot_be_pushed_is_said(
    grafana: GrafanaServer, tmp_path: Path, content: str, said: str
) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)
    files = [str(path)] if content else []
    done = CliRunner().invoke(push, [grafana.url, *files])
    assert said in str(done.exception)
    assert grafana.dashboards == {}


def test_an_incident_is_a_region_that_ends_when_it_clears(
    grafana: GrafanaServer, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(TOKEN)
    settings = SinkSettings(kind="grafana", url=grafana.url, token_file=str(tmp_path / "token"))
    raised, other, over = checks_sink.alerts()
    evil = msgspec.structs.replace(raised, title="<script>alert(1)</script>")
    sink = make_sink(settings)
    for alert in (evil, evil, other, over):
        assert sink.send([parcel(alert)], now_ns=NOW_NS).startswith("annotation ")
        if alert is evil:
            assert "<script" not in grafana.annotations[1]["text"]
    sink.close()
    first, second = grafana.annotations.values()
    assert (first["time"], first["timeEnd"]) == (
        raised.raised_ns // 10**6,
        over.cleared_ns // 10**6,
    )
    assert second["time"] == second["timeEnd"]
    assert first["tags"][1:] == ["tocsin", "exporter-down", "major"]
    assert annotation(raised, GrafanaOptions(dashboard_uid="d"))["dashboardUID"] == "d"
