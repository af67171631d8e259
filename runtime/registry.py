"""Registration of parts: collectors, detectors and sinks by kind, ours and those of plug-ins.

Ours are rows in one table for each sort (`collectors.registry` and its like); a plug-in names its
own in the entry points `tocsin.collectors`, `tocsin.detectors`, `tocsin.sinks`. Nothing is imported
before it is asked for, and importing registers nothing.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import msgspec

from runtime.mistakes import understand
from runtime.settings import Settings
from telemetry.errors import ConfigError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

M = TypeVar("M")
WEB = ("http", "https")
ENTRY_POINTS = ("*.dist-info/entry_points.txt", "*.egg-info/entry_points.txt")


class NoOptions(Settings, frozen=True, kw_only=True):
    """A part that has no options of its own."""


@dataclass(frozen=True, slots=True)
class Reads:
    """How captures and files of a protocol are read: what `tocsin decode` and `replay` go by.

    Ports are those of habit; a collector without `tcp_ports` takes no tcp:// or tls:// input, one
    without `udp_ports` no udp://. A part without `reads` is over UDP alone.
    `file` says what a file that is no capture holds: one datagram, or a byte stream as one TCP
    connection carries it. `looks_like` is shown the first bytes of such a file. A source whose
    messages are whole documents gives `parse(data, name) -> batches` instead: pure, and raising
    DecodeError for what it cannot read. `reasons` names counters of the decoder whose labels mean
    that something was not decoded: {counter: {label: in words}}.
    """

    udp_ports: tuple[int, ...] = ()
    tcp_ports: tuple[int, ...] = ()
    file: Literal["datagram", "stream"] = "datagram"
    looks_like: Callable[[bytes], bool] | None = None
    parse: Callable[[bytes, str], Any] | None = None
    reasons: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Part(Generic[M]):
    """One part: how it is made, what people call it, and its own options.

    `options` is the struct of the table `options` in its settings; `needs` names fields of its
    settings that must not be empty, `schemes` are those that its `url` may have.
    `reads` is for collectors and sources, and so is `sheds`: what it leaves out, class by class, of
    more than it can or may take. `decoder` is the struct of the table of that name in its settings,
    where it goes by it.
    """

    title: str
    make: M
    options: type[Settings] = NoOptions
    needs: tuple[str, ...] = ()
    schemes: tuple[str, ...] = ()
    reads: Reads | None = None
    sheds: str = ""
    decoder: type[Settings] | None = None

    def read(self, options: Mapping[str, Any]) -> Any:
        """Return the options as their struct, or raise ConfigError that names the key."""
        try:
            return msgspec.convert(dict(options), self.options)
        except msgspec.ValidationError as error:
            keys, said = understand(str(error), dict(options), self.options)
            raise ConfigError(f"{'.'.join(('options', *keys))}: {said}") from error


@dataclass(frozen=True, slots=True)
class Registry(Generic[M]):
    """Parts of one sort. `ours` gives "module:name" of each `Part` by kind."""

    group: str
    ours: Mapping[str, str]
    _found: dict[str, Part[M]] = field(default_factory=dict, compare=False)

    def kinds(self) -> list[str]:
        """Return every kind, ours first, then those of plug-ins."""
        return [*self.ours, *sorted(set(self._plugins()) - set(self.ours))]

    def knows(self, kind: str) -> bool:
        """Return whether there is such a kind."""
        return kind in self.ours or kind in self._plugins()

    def get(self, kind: str) -> Part[M]:
        """Return the part, or raise ConfigError: no such kind, or its plug-in does not load."""
        if kind not in self._found:
            self._found[kind] = self._load(kind)
        return self._found[kind]

    def _load(self, kind: str) -> Part[M]:
        if kind in self.ours:
            module, _, name = self.ours[kind].partition(":")
            part: Part[M] = getattr(import_module(module), name)
            return part
        plugin = self._plugins().get(kind)
        if plugin is None:
            import difflib

            near = difflib.get_close_matches(kind, self.kinds(), 1, 0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(self.kinds())}"
            raise ConfigError(f"kind {kind!r} is not known; {hint}")
        try:
            found = plugin.load()
        except Exception as error:  # a stranger's module may raise anything
            raise ConfigError(
                f"kind {kind!r}: plug-in {plugin.value} does not load: {error!r}"
            ) from error
        if not isinstance(found, Part):
            raise ConfigError(f"kind {kind!r}: plug-in {plugin.value} is no runtime.registry.Part")
        return found

    def _plugins(self) -> "dict[str, EntryPoint]":
        if not installed_with(self.group):
            return {}
        from importlib.metadata import entry_points

        return {point.name: point for point in entry_points(group=self.group)}


def installed_with(group: str) -> bool:
    """Return whether any package that is installed may have entry points of a group.

    So that importlib.metadata, which brings mail, zip and CSV (1.2 MB), is imported only where there
    is a plug-in. What lies in an archive is left to it.
    """
    places = [Path(place) for place in sys.path]
    try:
        return any(place.is_file() for place in places) or any(
            f"[{group}]" in path.read_text("utf-8", "replace")
            for place in places
            for pattern in ENTRY_POINTS
            for path in place.glob(pattern)
        )
    except OSError:
        return True
