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


class ApiAnswer(msgspec.Struct, frozen=True):
    """Rows of a series answer as the API gives them; see tocsin.api.models.SeriesAnswer."""

    series: list[dict[str, Any]]


class _Health(msgspec.Struct, frozen=True):
    """What `/health` says; see tocsin.api.models.Health."""

    problems: list[str]


def running_desk(state: Path) -> str:
    """Return `host:port` of the API of the desk that runs on this state folder, "" where none does."""
    try:
        address = (state / ADDRESS_FILE).read_text("ascii").strip()
    except OSError:
        return ""
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=2.0)
    try:
        connection.request("GET", "/ready", headers={"Host": f"127.0.0.1:{port}"})
        connection.getresponse().read()
    except OSError:
        return ""  # left behind by a desk that was killed
    finally:
        connection.close()
    return address


def problems(state: Path) -> list[str]:
    """Return what a running desk says is wrong with itself and the node; nothing where none runs."""
    address = running_desk(state)
    if not address:
        return []
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=5.0)
    try:
        connection.request("GET", "/health", headers={"Host": f"127.0.0.1:{port}"})
        body = connection.getresponse().read()
    except OSError as error:
        return [f"the desk at {address} does not answer: {error}"]
    finally:
        connection.close()
    return msgspec.json.decode(body, type=_Health).problems


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
    from tocsin.history_store import open_store

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
    host, _, port = address.rpartition(":")
    headers = {"Host": f"127.0.0.1:{port}"}
    if config.api.token_file:
        from tocsin.api.access import load_access

        token = min(load_access(config.api.token_file).tokens)
        headers["Authorization"] = f"Bearer {token}"
    connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", f"{path}?{urlencode(asked)}", headers=headers)
        answer = connection.getresponse()
        body = answer.read()
    except OSError as error:
        raise TransientError(f"the desk at {address} does not answer: {error}") from error
    finally:
        connection.close()
    if answer.status != http.client.OK:
        said = msgspec.json.decode(body)
        raise TransientError(str(said.get("detail") or said.get("title")))
    return body


def _rfc3339(time_ns: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(time_ns / 1e9, UTC).isoformat()
