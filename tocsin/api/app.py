"""The REST API: alarms, series, status, SQL, a live feed, and the console page.

Handlers are thin: they read a struct, ask the node or the history in a thread, and return a struct.
Every error is a problem document (RFC 9457) with one sentence.
"""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from alerting.config import AlertingSettings
from alerting.life.load import Load, LoadMetrics, load_of
from alerting.words.amounts import span
from history.reader import HistoryReader
from history.store import Connection
from runtime.component import Context
from runtime.memory import rss_bytes
from runtime.metrics import Metrics
from telemetry.errors import ConfigError, DecodeError, TransientError
from tocsin import __version__, verbs
from tocsin.api import models, pictures
from tocsin.api.access import Access
from tocsin.api.exchange import (
    asked,
    body_of,
    guarded,
    id_of,
    json_answer,
    problem,
    problem_of,
    problem_of_http,
)
from tocsin.api.exposition import merged
from tocsin.api.feed import AlertFeed
from tocsin.api.node_client import NodeClient
from tocsin.api.openapi import document
from tocsin.api.operations import OPERATIONS
from tocsin.api.workers import BusyError, Workers
from tocsin.times import time_ns

T = TypeVar("T")
A = TypeVar("A")
CONSOLE = Path(__file__).parent / "console.html"
BEHIND_TOLD_SECONDS = 120.0  # a tick of a minute is being stored, and one may wait
ALARMS_SEARCHED = 1000  # the newest, for one that is not in the history yet
LOAD_SHOWN_NS = 60_000_000_000
CONSOLE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; "
    "img-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PICTURE_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


class HistoryState(Protocol):
    """What the API tells of the history."""

    @property
    def high_water_ns(self) -> int: ...
    @property
    def next_sequence(self) -> int: ...
    def health(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Services:
    """What the handlers need."""

    context: Context
    access: Access
    node: NodeClient
    workers: Workers
    feed: AlertFeed
    history: HistoryState
    metrics: Metrics
    alerting: AlertingSettings = field(default_factory=AlertingSettings)


def api(services: Services) -> Starlette:
    """Return the API as an ASGI application."""
    handlers = _Handlers(services)
    routes = [Route("/", handlers.console)]
    for op in OPERATIONS:
        handler = getattr(handlers, op.name)
        if not op.open:
            handler = guarded(handler, services.access)
        routes.append(Route(op.path, handler, methods=[op.method.upper()]))
    return Starlette(routes=routes, exception_handlers={
        HTTPException: problem_of_http,
        ConfigError: problem_of(HTTPStatus.BAD_REQUEST),
        DecodeError: problem_of(HTTPStatus.BAD_REQUEST),
        msgspec.MsgspecError: problem_of(HTTPStatus.BAD_REQUEST),
        TransientError: problem_of(HTTPStatus.SERVICE_UNAVAILABLE),
        Exception: problem_of(HTTPStatus.INTERNAL_SERVER_ERROR),
    })  # fmt: skip


class _Handlers:
    def __init__(self, services: Services) -> None:
        self._services = services
        self._load_metrics = LoadMetrics(services.metrics.scoped("alarms"))
        self._load_shown_ns = 0
        self._document = msgspec.json.encode(document(OPERATIONS))

    async def console(self, request: Request) -> Response:
        del request
        headers = {"Content-Security-Policy": CONSOLE_POLICY, "X-Content-Type-Options": "nosniff"}
        return Response(CONSOLE.read_bytes(), media_type="text/html", headers=headers)

    async def openapi(self, request: Request) -> Response:
        del request
        return Response(self._document, media_type="application/json")

    async def health(self, request: Request) -> Response:
        del request
        problems = [self._services.history.health()]
        try:
            status = await self._services.node.ask("status", verbs.Nothing(), verbs.Status)
            problems += status.health
            if (behind := self._behind_seconds(status)) > BEHIND_TOLD_SECONDS:
                problems.append(
                    f"the history is {span(behind)} behind and catches up; alarms are told "
                    f"meanwhile, series and incidents of that time come later"
                )
        except TransientError as error:
            problems.append(f"the node does not answer: {error}")
        return _health([text for text in problems if text])

    async def ready(self, request: Request) -> Response:
        del request
        try:
            status = await self._services.node.ask("status", verbs.Nothing(), verbs.Status)
        except TransientError as error:
            return _health([str(error)])
        return _health([] if status.ready else ["the node is starting"])

    async def metrics(self, request: Request) -> Response:
        del request
        await self._show_load()
        texts = [self._services.metrics.render().decode()]
        try:
            answer = await self._services.node.ask("metrics", verbs.Nothing(), verbs.MetricsText)
            texts.insert(0, answer.text)
        except TransientError:
            self._services.context.log.warning("metrics_without_node")
        return Response(merged(texts), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def status(self, request: Request) -> Response:
        del request
        history = self._services.history
        node: verbs.Status | None = None
        try:
            node = await self._services.node.ask("status", verbs.Nothing(), verbs.Status)
        except TransientError:
            self._services.context.log.debug("status_without_node")
        return json_answer(
            models.StatusAnswer(
                version=__version__,
                node=node,
                desk=models.DeskStatus(
                    rss_bytes=rss_bytes(),
                    history=models.HistoryStatus(
                        high_water_ns=history.high_water_ns,
                        next_sequence=history.next_sequence,
                        behind_seconds=self._behind_seconds(node) if node else 0.0,
                        health=history.health(),
                    ),
                ),
            )
        )

    async def alarms(self, request: Request) -> Response:
        ask = asked(request, models.AlarmsQuery)
        wish = verbs.AlarmsRequest(active_only=ask.state == "active", limit=ask.limit)
        answer = await self._services.node.ask("alarms", wish, verbs.Alarms)
        return json_answer({"alarms": answer.alarms})

    async def alarm(self, request: Request) -> Response:
        name = id_of(request)
        rows = await self._read(lambda history: history.alarm_changes(int(name, 16)))
        if not rows:
            raise HTTPException(HTTPStatus.NOT_FOUND, f"no alarm {name} in the history")
        changes = [
            models.AlarmChange(
                changed_ns=row["changed_ns"],
                state=row["state"],
                severity=row["severity"],
                raised_ns=row["raised_ns"],
                cleared_ns=row["cleared_ns"],
                occurrence=row["occurrence"],
                specific_problem=row["specific_problem"],
                explain=_object(row["explain"]),
                operator_state=row["operator_state"],
                operator=row["operator"],
                operator_note=row["operator_note"],
                suppressed=row["suppressed"],
                shelved_until_ns=row["shelved_until_ns"],
                incident_id=f"{row['incident_id']:016x}" if row["incident_id"] else "",
            )
            for row in rows
        ]
        return json_answer(
            models.AlarmAnswer(
                id=name,
                kind=rows[0]["kind"],
                entity=rows[0]["entity"],
                changes=changes,
                stored_until_ns=self._services.history.high_water_ns,
            )
        )

    async def alarm_picture(self, request: Request) -> Response:
        return await self._picture(request, pictures.of_alarm, "alarm")

    async def incident_picture(self, request: Request) -> Response:
        return await self._picture(request, pictures.of_incident, "incident")

    async def _picture(self, request: Request, draw: Callable[..., str], what: str) -> Response:
        name, now_ns = id_of(request), self._now_ns()
        made = await self._read(lambda history: draw(history, int(name, 16), now_ns=now_ns))
        if not made and (alert := await self._newest(name, what)):
            made = await self._read(lambda h: pictures.of_alert(h, alert, now_ns=now_ns))
        if not made:
            said = f"no {what} {name} in the history, or no series of it: foreign alarms often have none"
            raise HTTPException(HTTPStatus.NOT_FOUND, said)
        headers = {"Content-Security-Policy": PICTURE_POLICY, "X-Content-Type-Options": "nosniff"}
        return Response(made, media_type="image/svg+xml", headers=headers)

    async def _newest(self, name: str, what: str) -> dict[str, Any] | None:
        """Return the node's alarm of this id or of this incident, which the history may not have yet."""
        field = "id" if what == "alarm" else "incident"
        wish = verbs.AlarmsRequest(active_only=True, limit=ALARMS_SEARCHED)
        try:
            answer = await self._services.node.ask("alarms", wish, verbs.Alarms)
        except TransientError:
            return None
        return next((alarm for alarm in answer.alarms if alarm.get(field) == name), None)

    async def incidents(self, request: Request) -> Response:
        ask = asked(request, models.SpanQuery)
        since_ns = time_ns(ask.since, now_ns=self._now_ns())
        rows = await self._read(lambda h: h.incidents(since_ns=since_ns, limit=ask.limit))
        found = [
            models.Incident(
                incident_id=f"{row['incident_id']:016x}",
                changed_ns=row["changed_ns"],
                opened_ns=row["opened_ns"],
                closed_ns=row["closed_ns"],
                severity=row["severity"],
                title=row["title"],
                causes=_object(row["causes"]),
                alarms=_object(row["alarms"]),
            )
            for row in rows
        ]
        until_ns = self._services.history.high_water_ns
        return json_answer(models.IncidentsAnswer(incidents=found, stored_until_ns=until_ns))

    async def incidents_now(self, request: Request) -> Response:
        ask = asked(request, models.AlarmsQuery)
        wish = verbs.IncidentsRequest(open_only=ask.state == "active", limit=ask.limit)
        return json_answer(await self._services.node.ask("incidents", wish, verbs.IncidentsAnswer))

    async def digest(self, request: Request) -> Response:
        ask = asked(request, models.SpanQuery)
        since_ns = time_ns(ask.since, now_ns=self._now_ns())
        rows = await self._read(lambda h: h.digest(since_ns=since_ns, limit=ask.limit))
        found = msgspec.convert(rows, list[models.DigestRow])
        until_ns = self._services.history.high_water_ns
        return json_answer(models.DigestAnswer(digest=found, stored_until_ns=until_ns))

    async def series(self, request: Request) -> Response:
        ask = asked(request, models.SeriesQuery)
        now_ns = self._now_ns()
        since_ns = time_ns(ask.since, now_ns=now_ns)
        until_ns = time_ns(ask.until, now_ns=now_ns) if ask.until else now_ns
        aggregates = [part.strip() for part in ask.aggregates.split(",") if part.strip()]
        step, rows = await self._read(
            lambda history: history.series(
                ask.match,
                since_ns=since_ns,
                until_ns=until_ns,
                step_seconds=ask.step,
                aggregates=aggregates,
                limit=ask.limit,
            )
        )
        return json_answer(
            models.SeriesAnswer(
                step_seconds=step,
                series=_by_series(rows, aggregates),
                truncated=len(rows) >= ask.limit,
                stored_until_ns=self._services.history.high_water_ns,
                note=_note(ask, len(rows)),
            )
        )

    def _behind_seconds(self, node: verbs.Status) -> float:
        """Return how much of what the node has judged the history does not have yet."""
        stored_ns = self._services.history.high_water_ns or node.started_ns
        return max(node.last_tick_end_ns - stored_ns, 0) / 1e9

    async def query(self, request: Request) -> Response:
        return await self._run_sql(asked(request, models.SqlQuery))

    async def query_body(self, request: Request) -> Response:
        return await self._run_sql(await body_of(request, models.SqlQuery))

    async def actions(self, request: Request) -> Response:
        # A page of another origin can send text without asking first, but not this type.
        kind = request.headers.get("content-type", "").partition(";")[0].strip()
        if kind != "application/json":
            raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send application/json")
        body = await body_of(request, models.ActionBody)
        wish = verbs.OperateRequest(kind=body.kind, payload=body.payload)
        answer = await self._services.node.act("operate", wish, verbs.OperateAnswer)
        if answer.refused:
            raise ConfigError(answer.refused)
        return json_answer(answer)

    async def windows(self, request: Request) -> Response:
        del request
        return json_answer(
            await self._services.node.ask("windows", verbs.Nothing(), verbs.WindowsAnswer)
        )

    async def predictions(self, request: Request) -> Response:
        del request
        ask = self._services.node.ask("predictions", verbs.Nothing(), verbs.PredictionsAnswer)
        return json_answer(await ask)

    async def baselines(self, request: Request) -> Response:
        ask = asked(request, models.BaselinesQuery)
        wish = verbs.BaselinesRequest(match=ask.match, limit=ask.limit)
        return json_answer(await self._services.node.ask("baselines", wish, verbs.BaselinesAnswer))

    async def triage(self, request: Request) -> Response:
        del request
        ask = self._services.node.ask("feedback", verbs.Nothing(), verbs.FeedbackAnswer)
        return json_answer(await ask)

    async def probation(self, request: Request) -> Response:
        del request
        ask = self._services.node.ask("probation", verbs.Nothing(), verbs.ProbationAnswer)
        return json_answer(await ask)

    async def load(self, request: Request) -> Response:
        return json_answer(await self._load(asked(request, models.LoadQuery)))

    async def _load(self, ask: models.LoadQuery) -> Load:
        now_ns, alerting = self._now_ns(), self._services.alerting
        since_ns = time_ns(ask.since, now_ns=now_ns)
        rows = await self._read(lambda h: h.alarm_load(since_ns=since_ns))
        load = load_of(
            rows, since_ns=since_ns, until_ns=now_ns + 1,
            operators=ask.operators or alerting.operators,
            acknowledge_seconds=ask.acknowledge_seconds or alerting.acknowledge_seconds,
        )  # fmt: skip
        return msgspec.structs.replace(load, stored_until_ns=self._services.history.high_water_ns)

    async def _show_load(self) -> None:
        """Let the metrics say the load of the last shift, worked out once a minute at most."""
        now_ns = self._now_ns()
        if now_ns - self._load_shown_ns < LOAD_SHOWN_NS:
            return
        self._load_shown_ns = now_ns
        try:
            self._load_metrics.show(await self._load(models.LoadQuery()))
        except TransientError as error:
            self._services.context.log.warning("load_not_shown error=%s", error)

    async def _run_sql(self, ask: models.SqlQuery) -> Response:
        try:
            form, data = await self._read(lambda history: history.sql(ask.sql, form=ask.format))
        except TransientError as error:
            if isinstance(error, BusyError):
                raise
            return problem(HTTPStatus.BAD_REQUEST, str(error))  # the engine's: the statement
        return Response(data, media_type=_media_type(form))

    async def feed(self, request: Request) -> Response:
        del request
        if self._services.feed.full:
            raise TransientError("too many follow the feed already; ask again later")
        events: AsyncIterator[bytes] = self._services.feed.follow()
        return StreamingResponse(
            events, media_type="text/event-stream", headers={"Cache-Control": "no-store"}
        )

    async def _read(self, call: Callable[[HistoryReader], A]) -> A:
        def with_reader(connection: Connection) -> A:
            return call(HistoryReader(connection))

        return await self._services.workers.run(with_reader)

    def _now_ns(self) -> int:
        return self._services.context.clock.now_ns()


def _media_type(form: str) -> str:
    """Return the media type of one of the engine's output formats."""
    if form.startswith("JSON"):
        return "application/json"
    known = {
        "Parquet": "application/vnd.apache.parquet",
        "ArrowStream": "application/vnd.apache.arrow.stream",
        "Arrow": "application/vnd.apache.arrow.file",
    }
    binary = form in ("Native", "RowBinary", "ORC", "Avro", "MsgPack")
    return known.get(form, "application/octet-stream" if binary else "text/plain; charset=utf-8")


def _health(problems: list[str]) -> Response:
    answer = models.Health(status="degraded" if problems else "ok", problems=problems)
    status = HTTPStatus.SERVICE_UNAVAILABLE if problems else HTTPStatus.OK
    return Response(msgspec.json.encode(answer), status.value, media_type="application/json")


def _by_series(rows: list[dict[str, Any]], aggregates: list[str]) -> list[models.Series]:
    found: dict[tuple[Any, ...], models.Series] = {}
    for row in rows:
        key = (row["view"], row["entity"], row["measure"], row["series_id"])
        series = found.get(key)
        if series is None:
            series = found[key] = models.Series(
                series_id=f"{row['series_id']:016x}",
                view=row["view"],
                entity=row["entity"],
                measure=row["measure"],
                key=row["key"],
                time_s=[],
                values={name: [] for name in aggregates},
            )
        series.time_s.append(row["time_s"])
        for name in aggregates:
            series.values[name].append(row[name])
    return [found[key] for key in sorted(found)]


def _note(ask: models.SeriesQuery, points: int) -> str:
    """Return what an asker should know of an answer that is empty or cut, else ""."""
    if points >= ask.limit:
        return f"the first {points} points in order of time; narrow match or since, or raise step or limit"
    if not points:
        return (
            f"nothing stored since {ask.since} matches {ask.match!r}; match is"
            " view=interface,entity=ams1*,measure=octets, each part optional;"
            " /api/v1/query?sql=select distinct view, measure from frames says what there is"
        )
    return ""


def _object(text: str) -> Any:
    try:
        return msgspec.json.decode(text or "{}")
    except msgspec.DecodeError:
        return {"text": text}
