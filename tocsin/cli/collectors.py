"""`tocsin collectors list`: what Tocsin can read, over what, and with which options."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from runtime.settings import Settings


@click.group()
def collectors() -> None:
    """Say what Tocsin can read: collectors, which listen in the node, and sources, in the gate."""


@collectors.command("list")
@click.argument("kinds", nargs=-1)
@click.option(
    "-o",
    "output",
    type=click.Choice(["table", "json", "jsonl"]),
    default="table",
    show_default=True,
)
def list_(kinds: tuple[str, ...], output: str) -> None:
    """List collectors and sources, with their options and defaults; those of plug-ins too.

    KINDS: these only, with every option. A collector is configured as `[collectors.NAME]`, a source
    as `[sources.NAME]`, each with `kind` and a table `options`.
    """
    from telemetry.errors import ConfigError

    rows = list(found(kinds))
    for kind in kinds:
        if not any(row["kind"] == kind for row in rows):
            raise ConfigError(
                f"no collector and no source is of kind {kind!r}; see `tocsin collectors list`"
            )
    if output == "json":
        click.echo(json.dumps(rows, indent=2))
    elif output == "jsonl":
        for row in rows:
            click.echo(json.dumps(row))
    else:
        for line in table(rows, options=bool(kinds)):
            click.echo(line)


def found(kinds: tuple[str, ...] = ()) -> Iterator[dict[str, Any]]:
    """Yield each collector and source as plain values; one that does not load says why."""
    from collectors.registry import COLLECTORS
    from collectors.sources import SOURCES
    from runtime.registry import Reads
    from telemetry.errors import ConfigError

    for table_name, where, registry in (
        ("collectors", "node", COLLECTORS), ("sources", "gate", SOURCES),
    ):  # fmt: skip
        for kind in registry.kinds():
            if kinds and kind not in kinds:
                continue
            row: dict[str, Any] = {"kind": kind, "table": table_name, "runs_in": where}
            try:
                part = registry.get(kind)
            except ConfigError as error:
                yield row | {"title": str(error), "transports": [], "ports": {}}
                continue
            reads = part.reads or Reads(udp_ports=() if where == "gate" else (0,))
            transports = ["udp"] if reads.udp_ports else []
            transports += ["tcp", "tls"] if reads.tcp_ports else []
            ports = {"udp": [p for p in reads.udp_ports if p], "tcp": list(reads.tcp_ports)}
            yield row | {
                "title": part.title,
                "transports": transports,
                "ports": {name: some for name, some in ports.items() if some},
                "reads_files": part.reads is not None,
                "sheds": part.sheds,
                "options": _fields(part.options),
                "decoder": _fields(part.decoder) if part.decoder else [],
            }


def _fields(settings: type["Settings"]) -> list[dict[str, Any]]:
    from runtime.described import options_of

    return [
        {
            "name": one.key,
            "type": one.type,
            "default": one.default,
            "required": one.required,
            "what": one.what,
        }
        for one in options_of(settings)
    ]


def table(rows: list[dict[str, Any]], *, options: bool) -> Iterator[str]:
    """Yield lines for people."""
    wide = max((len(row["kind"]) for row in rows), default=0)
    for row in rows:
        over = ",".join(row["transports"]) or row["runs_in"]
        yield f"{row['kind']:<{wide}}  {over:<11}  {row['title']}"
        if not options:
            continue
        margin = " " * (wide + 2)
        yield f"{margin}under load: {row.get('sheds') or 'not stated'}"
        listen = f', listen = "{row["transports"][0]}://[::]:PORT"' if row["transports"] else ""
        yield f'{margin}[{row["table"]}.NAME]  kind = "{row["kind"]}"{listen} (docs/configure.md)'
        yield f"{margin}[{row['table']}.NAME.options]"
        yield from _lines(row.get("options", []), margin)
        if row.get("decoder"):
            yield f"{margin}[{row['table']}.NAME.decoder]"
            yield from _lines(row["decoder"], margin)


def _lines(fields: list[dict[str, Any]], margin: str) -> Iterator[str]:
    for one in fields:
        default = "required" if one["required"] else json.dumps(one["default"])
        yield f"{margin}  {one['name']:<32} {one['type']:<6} {default:<10} {one['what']}"
    if not fields:
        yield f"{margin}  none"
