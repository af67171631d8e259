"""`tocsin doctor` about ports: whether we could listen where the configuration says, or do."""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from alerting.sinks import SINKS
from collectors.listen.udp import bind, holder_of, parse_address, pid_at
from collectors.sources import SOURCES
from runtime.registry import Registry
from telemetry.errors import ConfigError
from tocsin.config import Config

GATE = b"tocsin.gate"


def ports(config: Config, folder: Path) -> Iterator[tuple[bool, str]]:
    """Say which addresses somebody else has; while our own node runs, of those that its gate should have."""
    runs = (folder / "node.sock").exists()
    for name, listen in () if runs else _of_node_and_desk(config):
        yield _free(name, listen)
    served = _served("sources", config.sources, SOURCES)
    for name, listen in [*served, *_served("alerting.sinks", config.alerting.sinks, SINKS)]:
        yield _ours(name, listen) if runs else _free(name, listen)


def _of_node_and_desk(config: Config) -> Iterator[tuple[str, str]]:
    for name, collector in config.collectors.items():
        yield f"collectors.{name}", collector.listen
    own = ("metrics_listen",) if config.node.profile == "sensor" else ("listen", "sql_listen")
    for key in own:
        if listen := getattr(config.api, key):
            yield f"api.{key}", f"tcp://{listen}"


def _served(table: str, entries: Any, registry: Registry[Any]) -> Iterator[tuple[str, str]]:
    """Yield where parts listen that the gate runs: `listen` in their options, at any depth."""
    for name, settings in entries.items():
        for listen in _listens(registry.get(settings.kind).read(settings.options)):
            parts = urlsplit(listen if "//" in listen else f"//{listen}")
            yield f"{table}.{name}", f"tcp://{parts.netloc}"


def _listens(options: Any) -> Iterable[str]:
    if not isinstance(options, msgspec.Struct):
        return
    for key in options.__struct_fields__:
        value = getattr(options, key)
        if key == "listen" and isinstance(value, str) and value:
            yield value
        yield from _listens(value)


def _free(name: str, listen: str) -> tuple[bool, str]:
    try:
        for sock in bind(listen, shards=1, receive_buffer_bytes=65_536):
            sock.close()
    except ConfigError as error:
        return False, f"{name}: {error}"
    return True, f"{name}: {listen} is free"


def _ours(name: str, listen: str) -> tuple[bool, str]:
    try:
        _, port = parse_address(listen)
    except ConfigError as error:
        return False, f"{name}: {error}"
    if _free(name, listen)[0]:  # a port of 0 too: which one it got, only its log knows
        good = not port
        return good, f"{name}: {listen}" + (
            ": any port, the log says which"
            if good
            else " is free although the node runs: nobody listens there; the log of the gate says why, or "
            "start the node again where the configuration is newer than it"
        )
    command = _command(pid_at(port, "tcp"))
    if command and GATE not in command:
        return False, (
            f"{name}: {listen}: {holder_of(port, 'tcp') or 'another program'} has this port; stop it or listen "
            f"on another one. Nobody reaches us there meanwhile"
        )
    return True, f"{name}: {listen} is " + (
        "ours" if command else "taken; by whom, this user cannot see"
    )


def _command(pid: int) -> bytes:
    """Return how a process was started, b"" where it has ended meanwhile."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""
