"""How the command line reads the history: through a running desk's API, else from the store itself.

A second process cannot open the embedded store, so beside a running instance its API is the way in.
"""

import http.client
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec

from telemetry.errors import ConfigError, TransientError
from tocsin.config import Config

TIMEOUT_SECONDS = 60.0
ADDRESS_FILE = "desk.address"  # written by a running desk: where its API listens
# What is raised where something else answers there: no HTTP, no such document, no address in the file.
NO_DESK = (http.client.HTTPException, msgspec.DecodeError, ValueError)


class ApiAnswer(msgspec.Struct, frozen=True):
    """Rows of a series answer as the API gives them; see tocsin.api.models.SeriesAnswer."""

    series: list[dict[str, Any]]


class _Health(msgspec.Struct, frozen=True):
    """What `/health` says; see tocsin.api.models.Health."""

    problems: list[str]


class _Problem(msgspec.Struct, frozen=True):
    """Why the API refuses a question; see tocsin.api.models.Problem."""

    title: str
    detail: str = ""


def running_desk(state: Path) -> str:
    """Return `host:port` of the API of the desk that runs on this state folder, "" where none does."""
    try:
        address = (state / ADDRESS_FILE).read_text("ascii").strip()
        msgspec.json.decode(_answer(address, "/ready", seconds=2.0)[1], type=_Health)
    except (OSError, *NO_DESK):
        return ""  # left behind by a desk that was killed; another server may have its port by now
    return address


def problems(state: Path) -> list[str]:
    """Return what a running desk says is wrong with itself and the node; nothing where none runs."""
    address = running_desk(state)
    if not address:
        return []
    try:
        return msgspec.json.decode(
            _answer(address, "/health", seconds=5.0)[1], type=_Health
        ).problems
    except (OSError, *NO_DESK) as error:
        return [f"the desk at {address} does not answer: {error}"]


def query(config: Config, state: Path, sql: str, form: str) -> bytes:
    """Return the rows of a read-only statement in one of the engine's formats."""
    address = running_desk(state)
    if address:
        return _get(config, address, "/api/v1/query", {"sql": sql, "format": form})
    from history.reader import HistoryReader

    connection = _opened(config, state)
    try:
        return HistoryReader(connection).sql(sql, form=form)[1]
    finally:
        connection.close()


def series(
    config: Config,
    state: Path,
    match: str,
    *,
    since_ns: int,
    until_ns: int,
    step_seconds: int,
    aggregates: Sequence[str],
    limit: int,
) -> list[dict[str, Any]]:
    """Return rows of time_s, view, entity, measure, key and the aggregates, in time order."""
    address = running_desk(state)
    if not address:
        from history.reader import HistoryReader

        connection = _opened(config, state)
        try:
            _, rows = HistoryReader(connection).series(
                match,
                since_ns=since_ns,
                until_ns=until_ns,
                step_seconds=step_seconds,
                aggregates=aggregates,
                limit=limit,
            )
        finally:
            connection.close()
        names = ("time_s", "view", "entity", "measure", "key", *aggregates)
        return [{name: row[name] for name in names} for row in rows]
    asked = {
        "match": match,
        "since": _rfc3339(since_ns),
        "until": _rfc3339(until_ns),
        "step": str(step_seconds),
        "aggregates": ",".join(aggregates),
        "limit": str(limit),
    }
    answer = msgspec.json.decode(_get(config, address, "/api/v1/series", asked), type=ApiAnswer)
    rows = [
        {
            "time_s": time_s,
            "view": one["view"],
            "entity": one["entity"],
            "measure": one["measure"],
            "key": one["key"],
            **{name: one["values"][name][i] for name in aggregates},
        }
        for one in answer.series
        for i, time_s in enumerate(one["time_s"])
    ]
    return sorted(rows, key=lambda row: (row["time_s"], row["view"], row["entity"], row["measure"]))


def _opened(config: Config, state: Path) -> Any:
    from history.store import migrate
    from tocsin.desk.store import open_store

    settings = config.history
    folder = state / "history"
    if settings.store == "chdb" and not folder.is_dir():
        raise ConfigError(
            f"no history in {folder}: nothing was stored yet, or --state names another instance"
        )
    store = open_store(settings, state)
    writer = store.connect()
    migrate(writer)
    writer.close()
    return store.connect(
        read_only=True, seconds_max=settings.query_seconds_max, rows_max=settings.query_rows_max
    )


def _get(config: Config, address: str, path: str, asked: Mapping[str, str]) -> bytes:
    """Return the API's answer, or raise with its own sentence."""
    token = ""
    if config.api.token_file:
        from tocsin.api.access import load_access

        token = min(load_access(config.api.token_file).tokens)
    try:
        status, body = _answer(address, f"{path}?{urlencode(asked)}", TIMEOUT_SECONDS, token)
        if status == http.client.OK:
            return body
        said = msgspec.json.decode(body, type=_Problem)
    except (OSError, *NO_DESK) as error:
        raise TransientError(f"the desk at {address} does not answer: {error}") from error
    raise TransientError(said.detail or said.title)


def _answer(address: str, path: str, seconds: float, token: str = "") -> tuple[int, bytes]:
    """Return (status, body) of what listens there."""
    host, _, port = address.rpartition(":")
    headers = {"Host": f"127.0.0.1:{port}"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=seconds)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def _rfc3339(time_ns: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(time_ns / 1e9, UTC).isoformat()
