"""The REST API over a real store and a real request socket."""

import asyncio
import base64
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import httpx
import msgspec
import pytest

from alerting.asked import check
from history.chdb_store import ChdbStore
from history.store import migrate
from history.writer import HistoryWriter
from runtime.bus import RequestServer
from runtime.clock import ManualClock
from runtime.metrics import Metrics
from telemetry.batch import batch_from_rows
from telemetry.errors import ConfigError
from telemetry.schema import plain
from telemetry.schemas import ALARM, FRAME, INCIDENT, SERIES
from tocsin import verbs
from tocsin.api import models
from tocsin.api.access import Access, load_access
from tocsin.api.app import Services, api
from tocsin.api.feed import AlertFeed
from tocsin.api.node_client import NodeClient
from tocsin.api.operations import OPERATIONS
from tocsin.api.workers import Workers
from tocsin.testing import make_context

SECOND = 10**9
EVIL = '<script>alert(1)</script> & "x"\x00\x1b'
START_S = 1_795_478_400
NOW_NS = (START_S + 600) * SECOND


# An alarm that the node has and the history not yet.
NEW = {
    "id": "0" * 14 + "11", "incident": "0" * 14 + "22", "entity": "ams1", "title": "new", "state": "raised",
    "raised_ns": NOW_NS - SECOND, "changed_ns": NOW_NS, "cleared_ns": 0, "operator_state": "none",
    "explain": {"series": [f"{1:016x}"], "unit": "By/s"},
}  # fmt: skip


class History:
    high_water_ns = NOW_NS
    next_sequence = 7

    def health(self) -> str:
        return ""


STATUS = verbs.Status(
    version="", profile="site", ready=True, now_ns=NOW_NS, started_ns=0, frontier_ns=NOW_NS,
    last_tick_end_ns=NOW_NS, ticks=120, records=1, datagrams=1, series=2, exporters=2,
    alarms_raised=0, budget_used=0.0, budget_per_day=1.0, journal_next_sequence=7, rss_bytes=1,
    health=[], listeners=[],
)  # fmt: skip


class Api:
    """The application, a store with ten minutes of two series, and a node that may be away."""

    def __init__(self, folder: Path, access: Access, *, node: bool) -> None:
        self._store = ChdbStore(folder / "history", memory_bytes_max=400 * 1024**2)
        self._connection = self._store.connect()
        migrate(self._connection)
        self._fill()
        address = f"ipc://{folder}/node.sock"
        self._ended = threading.Event()
        self.status = STATUS
        self._thread = threading.Thread(target=self._answer, args=(address,), daemon=True)
        if node:
            self._thread.start()
        context = make_context("api", clock=ManualClock(NOW_NS))
        self._workers = Workers(
            lambda: self._store.connect(read_only=True, seconds_max=5, rows_max=1000), threads=1
        )
        self._node = NodeClient(address)
        feed = AlertFeed(f"ipc://{folder}/frames.sock", context)
        app = api(
            Services(context, access, self._node, self._workers, feed, History(), Metrics("desk"))
        )
        self._runner = asyncio.Runner()
        self._client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app, raise_app_exceptions=False),
            base_url="http://127.0.0.1:8470",
        )

    def _fill(self) -> None:
        writer = HistoryWriter(self._connection, make_context("history"))
        writer.start()
        schema = FRAME.wider(
            plain("octets", "u8"), plain("octets_lower", "f4"), plain("octets_upper", "f4")
        )
        names = [{"series_id": i, "entity": name, "view": "exporter", "key": f"exporter={name}"}
                 for i, name in enumerate(("ams1", "fra2"), 1)]  # fmt: skip
        alarm = {"changed_ns": NOW_NS, "alarm_id": 0xABC, "state": "raised", "severity": "major",
                 "kind": "link-cut", "entity": "ams1-fra2", "explain": '{"actual": 1}'}  # fmt: skip
        told = {"series": [f"{1:016x}"], "unit": "By/s"}
        silent = {"changed_ns": NOW_NS - 60 * SECOND, "raised_ns": NOW_NS - 60 * SECOND, "alarm_id": 0xDEF,
                  "state": "raised", "severity": "major", "kind": "exporter-down", "entity": "ams1",
                  "specific_problem": EVIL, "explain": json.dumps(told), "incident_id": 0x77}  # fmt: skip
        taken = silent | {"changed_ns": NOW_NS - 30 * SECOND, "operator_state": "acknowledged",
                          "operator": "ann", "operator_note": "on it"}  # fmt: skip
        under = json.dumps([f"{0xABC:016x}", f"{0xDEF:016x}"])
        incident = {"changed_ns": NOW_NS, "incident_id": 0x77, "opened_ns": NOW_NS, "title": "x",
                    "causes": "[]", "alarms": under, "lead_alarm_id": 0xABC}  # fmt: skip
        for tick in range(120):
            rows = [
                {
                    "tick_start_ns": (START_S + tick * 5) * SECOND,
                    "tick_seconds": 5,
                    "view": "exporter",
                    "series_id": i,
                    "octets": 500 * i,
                    "octets_lower": 80.0 * i,
                    "octets_upper": 120.0 * i,
                }
                for i in (1, 2)
            ]
            batches = [batch_from_rows(schema, rows)]
            if tick == 0:
                batches += [
                    batch_from_rows(SERIES, names),
                    batch_from_rows(ALARM, [alarm, silent, taken]),
                ]
                batches += [batch_from_rows(INCIDENT, [incident])]
            writer.tick((START_S + tick * 5 + 5) * SECOND, batches)
        writer.flush()

    def _answer(self, address: str) -> None:
        server = RequestServer(address)
        server.start()
        server.handle(
            "alarms",
            verbs.AlarmsRequest,
            lambda ask: verbs.Alarms([{"id": "0abc", "limit": ask.limit}, NEW][: ask.limit // 5]),
        )
        server.handle("status", verbs.Nothing, lambda _: self.status)
        server.handle(
            "metrics",
            verbs.Nothing,
            lambda _: verbs.MetricsText("# HELP n x\n# TYPE n gauge\nn 1\n"),
        )
        self.asked: list[verbs.OperateRequest] = []
        server.handle("operate", verbs.OperateRequest, self._operate)
        server.handle(
            "windows", verbs.Nothing, lambda _: verbs.WindowsAnswer(windows=[{"name": "s1"}])
        )
        server.handle(
            "incidents",
            verbs.IncidentsRequest,
            lambda ask: verbs.IncidentsAnswer([{"open_only": ask.open_only, "limit": ask.limit}]),
        )
        while not self._ended.wait(0.005):
            server.serve()
        server.stop()

    def _operate(self, ask: verbs.OperateRequest) -> verbs.OperateAnswer:
        try:
            check(ask.kind, ask.payload, 0)
        except ConfigError as error:
            return verbs.OperateAnswer(refused=str(error))
        self.asked.append(ask)
        return verbs.OperateAnswer(counts_from_ns=NOW_NS)

    def get(self, path: str, **how: Any) -> httpx.Response:
        return self._runner.run(self._client.get(path, **how))

    def post(self, path: str, **how: Any) -> httpx.Response:
        return self._runner.run(self._client.post(path, **how))

    def close(self) -> None:
        self._runner.run(self._client.aclose())
        self._runner.close()
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join(30)
        self._workers.stop()
        self._node.stop()
        self._connection.close()


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Api]:
    made = Api(tmp_path, Access(), node=True)
    yield made
    made.close()


@pytest.mark.parametrize(
    "since", ["9999-12-31T23:59:59Z", "2262-05-01", "2262-04-12", "2200-01-01"]
)
def test_since_a_time_that_is_to_come_there_is_nothing(client: Api, since: str) -> None:
    series = client.get(f"/api/v1/series?match=view%3Dexporter&since={since}").json()
    assert series["series"] == []
    assert client.get(f"/api/v1/incidents?since={since}").json()["incidents"] == []
    assert client.get(f"/api/v1/digest?since={since}").json()["digest"] == []
    assert client.get(f"/api/v1/load?since={since}").json()["raises"] == 0


@pytest.mark.parametrize("since", ["0001-01-01", "999999999999d", "1900-01-01T00:00:00Z"])
def test_since_a_time_before_all_others_there_is_everything(client: Api, since: str) -> None:
    ask = {"match": "view=exporter", "since": since, "until": "9999-12-31T23:59:59Z"}
    assert client.get("/api/v1/series", params=ask).status_code == 200
    load = client.get(f"/api/v1/load?since={since}")
    assert load.json().get("raises") == 2, load.text
    assert client.get(f"/api/v1/incidents?since={since}").json()["incidents"]


def test_series_come_as_columns_with_their_names(client: Api) -> None:
    answer = client.get(
        "/api/v1/series",
        params={
            "match": "entity=ams*,measure=octets",
            "since": "10m",
            "step": 60,
            "aggregates": "avg,count",
        },
    )
    found = msgspec.json.decode(answer.content, type=models.SeriesAnswer)
    (series,) = found.series
    assert (series.entity, series.key, found.step_seconds) == ("ams1", "exporter=ams1", 60)
    assert series.values == {"avg": [100.0] * 10, "count": [12] * 10}
    assert series.time_s == list(range(START_S, START_S + 600, 60))


def test_ticks_and_rollups_say_the_same(client: Api) -> None:
    ask = {
        "match": "measure=octets",
        "since": "10m",
        "aggregates": "avg,min,max,count,last,stdev,p95",
    }
    fine = client.get("/api/v1/series", params={**ask, "step": 5}).json()["series"]
    coarse = client.get("/api/v1/series", params={**ask, "step": 300}).json()["series"]
    assert [len(series["time_s"]) for series in fine] == [120, 120]
    assert [series["values"]["count"] for series in coarse] == [[60, 60], [60, 60]]
    assert coarse[1]["values"]["avg"] == coarse[1]["values"]["p95"] == [200.0, 200.0]


def test_alarms_come_from_the_node_and_their_life_from_the_history(client: Api) -> None:
    assert client.get("/api/v1/alarms?limit=5").json() == {"alarms": [{"id": "0abc", "limit": 5}]}
    newest, raised = client.get(f"/api/v1/alarms/{0xDEF:016x}").json()["changes"]
    assert (newest["operator_state"], newest["operator"], newest["operator_note"]) == (
        "acknowledged",
        "ann",
        "on it",
    )
    assert (raised["operator"], raised["suppressed"], raised["incident_id"]) == (
        "",
        "",
        f"{0x77:016x}",
    )
    one = client.get(f"/api/v1/alarms/{0xABC:016x}").json()
    assert (one["kind"], one["entity"]) == ("link-cut", "ams1-fra2")
    assert one["changes"][0]["explain"] == {"actual": 1}


@pytest.mark.parametrize(("behind", "said"), [(0, []), (60, []), (300, ["5 min behind"])])
def test_a_history_that_lags_is_said(client: Api, behind: int, said: list[str]) -> None:
    client.status = msgspec.structs.replace(STATUS, last_tick_end_ns=NOW_NS + behind * SECOND)
    health = client.get("/health").json()
    assert len(health["problems"]) == len(said)
    assert all(words in problem for words, problem in zip(said, health["problems"], strict=True))
    assert client.get("/api/v1/status").json()["desk"]["history"]["behind_seconds"] == behind
    assert client.get("/api/v1/incidents").json()["stored_until_ns"] == NOW_NS


@pytest.mark.parametrize("path", ["alarms/0000000000000def", "incidents/0000000000000077"])
def test_a_picture_shows_the_series_its_band_and_what_happened(client: Api, path: str) -> None:
    answer = client.get(f"/api/v1/{path}/picture.svg")
    assert answer.headers["content-type"].startswith("image/svg+xml")
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    space = "{http://www.w3.org/2000/svg}"
    svg = ElementTree.fromstring(answer.text)
    assert not list(svg.iter(f"{space}script"))
    (title,) = svg.iter(f"{space}title")
    assert title.text == '<script>alert(1)</script> & "x"\ufffd\ufffd (ams1)'
    (line,) = svg.iter(f"{space}polyline")
    (band,) = svg.iter(f"{space}polygon")
    points = len(line.attrib["points"].split())
    assert 50 < points <= 120  # each the mean of a tick or two
    assert len(band.attrib["points"].split()) == 2 * points
    words = [text.text for text in svg.iter(f"{space}text")]
    assert {"raised", "acknowledged", "bit/s", "960"} <= set(words)  # 8 x the band's upper end


def test_an_alarm_that_the_history_has_not_yet_has_its_picture_too(client: Api) -> None:
    for path in (f"alarms/{NEW['id']}", f"incidents/{NEW['incident']}"):
        answer = client.get(f"/api/v1/{path}/picture.svg")
        assert "<title>new (ams1)</title>" in answer.text
        assert ">raised</text>" in answer.text


def test_what_has_no_picture_is_said(client: Api) -> None:
    for path in (f"alarms/{0xABC:016x}", "alarms/00000000000000ff", "incidents/00000000000000ff"):
        answer = client.get(f"/api/v1/{path}/picture.svg")
        assert answer.status_code == 404, path
        assert "no series of it" in answer.json()["detail"]


def test_an_empty_or_cut_answer_of_series_says_what_to_ask(client: Api) -> None:
    whole = client.get("/api/v1/series?since=10m&step=60").json()
    assert (len(whole["series"]), whole["note"]) == (2, "")
    cut = client.get("/api/v1/series?since=10m&step=60&limit=3").json()
    assert cut["truncated"]
    assert cut["note"].startswith("the first 3 points")
    none = client.get("/api/v1/series?match=view%3Dnowhere").json()
    assert none["series"] == []
    assert "select distinct view, measure" in none["note"]


def test_sql_is_answered_by_get_and_post_and_only_read(client: Api) -> None:
    sql = "select count() as n from frames"
    assert client.get("/api/v1/query", params={"sql": sql}).json()["data"] == [[240]]
    body = {"sql": sql, "format": "CSV"}
    assert client.post("/api/v1/query", json=body).text == "240\n"
    refused = client.post("/api/v1/query", json={"sql": "drop table frames"})
    assert refused.status_code == 400
    assert "'drop' cannot be used here" in refused.json()["detail"]
    wrong = client.post("/api/v1/query", json={"sql": "select nothing from frames"})
    assert (wrong.status_code, wrong.headers["content-type"]) == (400, "application/problem+json")


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/api/v1/series?match=entity", 400, "not view=, entity= or measure="),
        ("/api/v1/series?since=yesterday", 400, "is no time"),
        ("/api/v1/series?aggregates=median", 400, "unknown aggregate"),
        ("/api/v1/series?step=-1", 400, "step"),
        ("/api/v1/series?aggregates=avg,max,avg", 400, "and each once"),
        ("/api/v1/series?aggregates=,", 400, "name at least one of avg"),
        (f"/api/v1/series?since={'9' * 400}d", 400, "is no time"),
        ("/api/v1/alarms?state=loud", 400, "state"),
        ("/api/v1/alarms/xyz", 400, "16 hex digits"),
        ("/api/v1/alarms/00000000000000ff", 404, "no alarm"),
        ("/api/v2/alarms", 404, "openapi.json"),
    ],
)
def test_a_wrong_question_is_a_problem_document(
    client: Api, path: str, status: int, words: str
) -> None:
    answer = client.get(path)
    problem = msgspec.json.decode(answer.content, type=models.Problem)
    assert (answer.status_code, problem.status) == (status, status)
    assert answer.headers["content-type"] == "application/problem+json"
    assert words in problem.detail


def test_metrics_of_node_and_desk_are_one_page(client: Api) -> None:
    text = client.get("/metrics").text
    assert "n 1\n" in text
    assert text.count("# TYPE n ") == 1


def test_the_document_names_every_route_and_the_routes_follow_it(client: Api) -> None:
    document = client.get("/api/v1/openapi.json").json()
    assert {
        (path, method) for path, methods in document["paths"].items() for method in methods
    } == {(operation.path, operation.method) for operation in OPERATIONS}
    schemas = document["components"]["schemas"]
    for struct in (models.SeriesAnswer, models.AlarmsAnswer, models.Problem):
        names = {field.encode_name for field in msgspec.structs.fields(struct)}
        assert schemas[struct.__name__]["properties"].keys() == names
    asked = document["paths"]["/api/v1/series"]["get"]["parameters"]
    assert {parameter["name"] for parameter in asked} == {
        field.encode_name for field in msgspec.structs.fields(models.SeriesQuery)
    }


def test_the_console_is_one_page_that_loads_nothing_from_elsewhere(client: Api) -> None:
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "src=" not in page.text


def test_a_page_under_another_name_is_not_answered(client: Api) -> None:
    answer = client.get("/api/v1/alarms", headers={"host": "attacker.example:8470"})
    assert answer.status_code == 401


def test_a_node_that_is_away_is_said_and_the_history_goes_on(tmp_path: Path) -> None:
    away = Api(tmp_path, Access(), node=False)
    try:
        health = away.get("/health")
        assert health.status_code == 503
        assert "does not answer" in health.json()["problems"][0]
        assert away.get("/api/v1/alarms").status_code == 503
        assert len(away.get("/api/v1/series?since=10m").json()["series"]) == 2
    finally:
        away.close()


def test_with_tokens_only_their_holders_enter(tmp_path: Path) -> None:
    guarded = Api(tmp_path, Access(frozenset({"a-token-of-enough-signs"})), node=False)
    try:
        assert guarded.get("/api/v1/series").status_code == 401
        wrong = {"Authorization": "Bearer a-token-of-enough-sign"}
        assert guarded.get("/api/v1/series", headers=wrong).status_code == 401
        right = {"Authorization": "Bearer a-token-of-enough-signs"}
        asked = base64.b64encode(b"ann:a-token-of-enough-signs").decode()
        browser = {"Authorization": f"Basic {asked}"}
        picture = f"/api/v1/alarms/{0xDEF:016x}/picture.svg"
        refused = guarded.get(picture)
        assert refused.headers["www-authenticate"] == 'Basic realm="Tocsin"'
        assert guarded.get(picture, headers=browser).status_code == 200
        assert guarded.get(picture, headers={"Authorization": "Basic %"}).status_code == 401
        assert guarded.get("/api/v1/series", headers=browser).status_code == 401
        assert guarded.get("/api/v1/series", headers=right).status_code == 200
        assert guarded.get("/api/v1/openapi.json").status_code == 200
    finally:
        guarded.close()


@pytest.mark.parametrize("content", ["", "# none\n", "short\n"])
def test_a_token_file_without_good_tokens_stops_the_desk(tmp_path: Path, content: str) -> None:
    path = tmp_path / "tokens"
    path.write_text(content)
    with pytest.raises(ConfigError, match="16 characters"):
        load_access(str(path))


def test_operators_act_over_the_api_and_a_foreign_page_cannot(client: Api) -> None:
    body = {"kind": "acknowledge", "payload": {"alarm": "0" * 15 + "a", "by": "ann"}}
    answer = client.post("/api/v1/actions", json=body)
    assert answer.json() == {"counts_from_ns": NOW_NS, "refused": ""}
    assert [(ask.kind, ask.payload["by"]) for ask in client.asked] == [("acknowledge", "ann")]
    wrong = client.post("/api/v1/actions", json={"kind": "acknowledge", "payload": {}})
    assert (wrong.status_code, wrong.json()["detail"]) == (
        400, "acknowledge needs alarm or alarms or incident",
    )  # fmt: skip
    deep = '{"kind": "x", "payload": {"x": ' + "[" * 100_000
    answer = client.post(
        "/api/v1/actions", content=deep, headers={"content-type": "application/json"}
    )
    assert (answer.status_code, answer.json()["detail"]) == (400, "the body is nested too deep")
    text = client.post("/api/v1/actions", content=msgspec.json.encode(body))
    assert text.status_code == 415
    assert client.get("/api/v1/windows").json() == {"windows": [{"name": "s1"}]}


def test_incidents_of_this_moment_come_from_the_node(client: Api) -> None:
    def ask(**query: Any) -> Any:
        return client.get("/api/v1/incidents/now", params=query).json()["incidents"]

    assert ask() == [{"open_only": True, "limit": 1000}]
    assert ask(state="all", limit=5) == [{"open_only": False, "limit": 5}]


def test_alarm_load_comes_from_the_history(client: Api) -> None:
    load = client.get("/api/v1/load", params={"since": "1h", "operators": 2}).json()
    assert (load["raises"], load["grade"], load["operators"]) == (2, "acceptable", 2)
    assert load["top"][0]["entity"] == "ams1-fra2"
    assert (
        load["stored_until_ns"]
        == client.get("/api/v1/status").json()["desk"]["history"]["high_water_ns"]
        > 0
    )
    page = client.get("/metrics").text
    assert 'tocsin_alarm_load{component="alarms",figure="raises"} 2' in page
    assert 'tocsin_alarm_load{component="alarms",figure="acknowledged_share"} 0.5' in page
    late = client.get("/api/v1/load", params={"acknowledge_seconds": 10}).json()
    assert late["acknowledged_share"] == 0.0
