"""`tocsin alarm ...`: what operators do with alarms and incidents of a running node."""

import getpass
from pathlib import Path
from typing import Any

import click

_state = click.option("--state", type=click.Path(path_type=Path), help="State folder.")
_by = click.option("--by", default=getpass.getuser, show_default="the user", help="Who acts.")
_note = click.option("--note", "--reason", default="", help="Why; it is kept with the alarm.")


SPAN_SECONDS_MAX = 10 * 365 * 86_400


class _Span(click.ParamType[float]):
    """`2h`, `30m`, or a number of seconds."""

    name = "span"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        from tocsin.times import span_seconds

        seconds = span_seconds(value if str(value)[-1:].isalpha() else f"{value}s")
        if not seconds:
            self.fail(f"{value!r} is no span of time: write 2h, 30m or 90s", param, ctx)
        if seconds > SPAN_SECONDS_MAX:
            self.fail(f"{value!r} is more than ten years", param, ctx)
        return seconds


_ids = click.argument("ids", nargs=-1, required=True)


@click.group()
def alarm() -> None:
    """Act on alarms (ids of 16 hex digits) and incidents (`incident:ID`) of a running node."""


@alarm.command("list")
@click.option("--incidents", is_flag=True, help="What alarms belong to, instead of these.")
@click.option("--all", "ended", is_flag=True, help="Also what is over, but not long ago.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True)
@_state
def list_(*, incidents: bool, ended: bool, limit: int, state: Path | None) -> None:
    """List what is up, the newest change first: id, severity, since when, what became of it, title."""
    from telemetry.text import printable
    from tocsin import verbs
    from tocsin.reports.alarm_lines import alarm_line, incident_line

    if incidents:
        named = verbs.IncidentsRequest(open_only=not ended, limit=limit)
        found = _ask(state, "incidents", named, verbs.IncidentsAnswer).incidents
    else:
        wish = verbs.AlarmsRequest(active_only=not ended, limit=limit)
        found = _ask(state, "alarms", wish, verbs.Alarms).alarms
    for one in found:
        click.echo(printable(incident_line(one) if incidents else alarm_line(one)))
    if len(found) == limit:
        click.echo(f"the first {limit}; --limit shows more", err=True)


@alarm.command()
@_ids
@click.option("--until", type=click.Choice(["clear", "worse"]), default="clear", show_default=True)
@_by
@_note
@_state
def ack(ids: tuple[str, ...], until: str, by: str, note: str, state: Path | None) -> None:
    """Acknowledge until it clears, or until it gets worse."""
    for target in ids:
        _act(state, "acknowledge", _target(target) | {"until": until, "by": by, "note": note})


@alarm.command()
@_ids
@_by
@_state
def unack(ids: tuple[str, ...], by: str, state: Path | None) -> None:
    """Take an acknowledgement back."""
    for target in ids:
        _act(state, "unacknowledge", _target(target) | {"by": by})


@alarm.command()
@_ids
@_by
@_note
@_state
def close(ids: tuple[str, ...], by: str, note: str, state: Path | None) -> None:
    """Close by hand: a foreign alarm that is up is cleared, one that is over is done with."""
    for target in ids:
        _act(state, "close", _target(target) | {"by": by, "note": note})


@alarm.command()
@_ids
@click.option("--for", "seconds", type=_Span(), default="2h", show_default=True)
@click.option("--behind", is_flag=True, help="Of a site: also what loses its way without it.")
@_by
@_note
@_state
def shelve(
    ids: tuple[str, ...], seconds: float, behind: bool, by: str, note: str, state: Path | None
) -> None:
    """Hide alarms, incidents, or all of `site:NAME` for a while; they come back by themselves."""
    for target in ids:
        _act(
            state,
            "shelve",
            _target(target) | {"seconds": seconds, "behind": behind, "by": by, "note": note},
        )


@alarm.command()
@_ids
@_by
@_state
def unshelve(ids: tuple[str, ...], by: str, state: Path | None) -> None:
    """Tell of shelved alarms or incidents again; of a whole site: `tocsin alarm expire NAME`."""
    for target in ids:
        _act(state, "unshelve", _target(target) | {"by": by})


@alarm.command()
@click.argument("objects", nargs=-1, required=True)
@click.option("--from", "start", default="", help="RFC 3339, with its zone.  [default: now]")
@click.option("--for", "seconds", type=_Span(), default="2h", show_default=True)
@click.option("--behind", is_flag=True, help="Also what loses its way without them.")
@click.option("--name", default="", help="To end it with `tocsin alarm expire NAME`.")
@_by
@_note
@_state
def plan(
    objects: tuple[str, ...],
    start: str,
    seconds: float,
    behind: bool,
    name: str,
    by: str,
    note: str,
    state: Path | None,
) -> None:
    """Plan a work on OBJECTS: routers, links, interfaces, sites. What is still up after it is told then."""
    from runtime.clock import SystemClock
    from tocsin.times import time_ns

    payload: dict[str, Any] = {
        "objects": list(objects), "seconds": seconds, "behind": behind, "by": by, "note": note,
    }  # fmt: skip
    if start:
        payload["start_ns"] = time_ns(start, now_ns=SystemClock().now_ns(), zoned=True)
    _act(state, "maintenance", payload | ({"name": name} if name else {}))


@alarm.command("out-of-service")
@click.argument("nodes", nargs=-1, required=True)
@click.option("--over", is_flag=True, help="They are in service again.")
@_by
@_note
@_state
def out_of_service(
    nodes: tuple[str, ...], over: bool, by: str, note: str, state: Path | None
) -> None:
    """Hide all alarms of NODES that are not in service yet, or no more, until `--over`."""
    for node in nodes:
        payload: dict[str, Any] = {"nodes": [node], "by": by, "note": note}
        _act(state, "out_of_service", payload | ({"over": True} if over else {}))


@alarm.command()
@click.argument("kinds", nargs=-1)
@click.option("--source", "sources", multiple=True)
@click.option("--node", "nodes", multiple=True)
@click.option("--for", "seconds", type=_Span(), default="1h", show_default=True)
@click.option("--name", default="", help="To end it with `tocsin alarm expire NAME`.")
@_by
@_note
@_state
def silence(
    kinds: tuple[str, ...],
    sources: tuple[str, ...],
    nodes: tuple[str, ...],
    seconds: float,
    name: str,
    by: str,
    note: str,
    state: Path | None,
) -> None:
    """Hide every alarm of these KINDS, sources and nodes for a while."""
    payload: dict[str, Any] = {
        "kinds": list(kinds), "sources": list(sources), "nodes": list(nodes), "seconds": seconds,
        "by": by, "note": note,
    }  # fmt: skip
    _act(state, "silence", payload | ({"name": name} if name else {}))


@alarm.command()
@click.argument("name")
@_by
@_state
def expire(name: str, by: str, state: Path | None) -> None:
    """End a silence or a planned work early."""
    _act(state, "expire", {"name": name, "by": by})


@alarm.command()
@click.argument("verdict", type=click.Choice(["true", "false", "expected"]))
@_ids
@_by
@_note
@_state
def feedback(verdict: str, ids: tuple[str, ...], by: str, note: str, state: Path | None) -> None:
    """Say of alarms or incidents whether they were worth it; the next ones get a priority by it."""
    for target in ids:
        _act(state, "feedback", _target(target) | {"verdict": verdict, "by": by, "note": note})


@alarm.command()
@click.argument("incident")
@click.argument("words")
@_by
@_state
def comment(incident: str, words: str, by: str, state: Path | None) -> None:
    """Keep a remark with an incident; it is shown with it, and with the next like it."""
    payload = {"incident": _incident(incident), "verdict": "comment", "note": words, "by": by}
    _act(state, "feedback", payload)


@alarm.command()
@click.argument("incidents", nargs=-1, required=True)
@_by
@_state
def merge(incidents: tuple[str, ...], by: str, state: Path | None) -> None:
    """Merge incidents into the first one; what came together here is learned."""
    _act(state, "merge", {"incidents": [_incident(one) for one in incidents], "by": by})


@alarm.command()
@click.argument("incident")
@click.argument("alarms", nargs=-1, required=True)
@_by
@_state
def split(incident: str, alarms: tuple[str, ...], by: str, state: Path | None) -> None:
    """Take alarms out of an incident into one of their own; that they differ is learned."""
    _act(state, "split", {"incident": _incident(incident), "alarms": list(alarms), "by": by})


@alarm.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--circuit", "circuits", multiple=True, help="CIRCUIT=LINK: what carries what here.")
@click.option("--every", type=_Span(), help="Look into folders again and again: 30s, 5m.")
@_state
def works(
    files: tuple[Path, ...], circuits: tuple[str, ...], every: float | None, state: Path | None
) -> None:
    """Import planned works from iCalendar files and carriers' notices (maintnote), as files or mails.

    Of a folder every file is taken, and put into `taken` or `refused` below it.
    """
    from runtime.clock import SystemClock
    from telemetry.errors import TransientError
    from telemetry.text import printable
    from tocsin.files.maintenance import read_works, take_folder

    clock = SystemClock()
    pairs = dict(one.partition("=")[::2] for one in circuits)

    def act(windows: list[dict[str, Any]]) -> None:
        if not windows:
            click.echo("all that it plans is over: nothing was taken from it")
            return
        _act(state, "maintenance", {"windows": windows})
        for window in windows:
            objects = ", ".join(window.get("objects", []) or ["cancelled"])
            click.echo(printable(f"  {window['name']}: {objects}"))

    def take() -> None:
        now_ns = clock.now_ns()
        for path in files:
            if path.is_dir():
                for line in take_folder(path, pairs, act, now_ns=now_ns):
                    click.echo(printable(line))
            else:
                act(read_works(path, pairs, now_ns=now_ns))

    if every is None or not all(path.is_dir() for path in files):
        take()
        return
    while True:
        try:
            take()
        except (TransientError, OSError) as error:  # a node that starts again, a disk that is back
            click.echo(f"tocsin: {printable(str(error))}; the next try is in {every:g} s", err=True)
        clock.sleep(every)


@alarm.command()
@_state
def windows(state: Path | None) -> None:
    """List planned works, silences, shelved alarms and what is out of service."""
    import msgspec

    from alerting.life.windows import Window
    from telemetry.text import printable
    from tocsin import verbs
    from tocsin.reports.handover import window_line

    for one in _ask(state, "windows", verbs.Nothing(), verbs.WindowsAnswer).windows:
        click.echo(printable(window_line(msgspec.convert(one, Window))))


def _target(text: str) -> dict[str, Any]:
    sort, colon, name = text.partition(":")
    if not colon:
        return {"alarm": text}
    if sort == "incident":
        return {"incident": name}
    if sort == "site":
        return {"sites": [name]}
    raise click.UsageError(f"{text!r}: write an alarm's id, incident:ID or site:NAME")


def _incident(text: str) -> str:
    """Return the id of an incident, which may be written as for the other commands."""
    return text.removeprefix("incident:")


def _act(state: Path | None, kind: str, payload: dict[str, Any]) -> None:
    from telemetry.errors import ConfigError
    from tocsin import verbs

    wish = verbs.OperateRequest(kind=kind, payload=payload)
    _ask(state, "status", verbs.Nothing(), verbs.Status)  # a node that is away is said at once
    answer = _ask(
        state, "operate", wish, verbs.OperateAnswer, timeout_seconds=verbs.JOURNALLED_SECONDS
    )
    if answer.refused:
        raise ConfigError(answer.refused)
    click.echo(f"{kind}: counts from the next second on")


def _ask(
    state: Path | None, verb: str, body: Any, answer: type[Any], *, timeout_seconds: float = 2.0
) -> Any:
    from runtime.bus import RequestClient
    from tocsin.state import state_dir

    client = RequestClient(f"ipc://{state_dir(state)}/node.sock")
    try:
        return client.ask(verb, body, answer, timeout_seconds=timeout_seconds)
    finally:
        client.close()
