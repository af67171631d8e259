"""The file of a story: a network, what happens in it at which second, and what must be so; with its mistakes.

docs/alarms.md explains the words.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from correlator.tables.network_map import (
    FileNetworkMap,
    InterfaceEntry,
    LinkEntry,
    NetworkFile,
    PrefixEntry,
    RouterEntry,
)
from telemetry.errors import ConfigError
from telemetry.x733 import SEVERITIES

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_TIME = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)")
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_PLACE = re.compile(r" - at `\$(.*)`$")
_STEP = re.compile(r"\[(\d+)\]|\.([^.\[]+)")


class Flap(msgspec.Struct, forbid_unknown_fields=True):
    """An alarm that comes and goes."""

    alarm: str
    times: int
    every: str | int | float


class Step(msgspec.Struct, forbid_unknown_fields=True):
    """What happens at one moment, and what must be so then."""

    at: str | int | float
    alarms: list[str | dict[str, Any]] = []
    clear: list[str | dict[str, Any]] = []
    flap: list[Flap] = []
    faults: list[str] = []
    end: list[str] = []
    lines: list[str] = []
    operator: list[dict[str, dict[str, Any]]] = []
    expect: dict[str, Any] = {}


class Network(msgspec.Struct, forbid_unknown_fields=True):
    """Routers and links: rings and chains of names, links of two each."""

    ring: list[str] = []
    chains: list[list[str]] = []
    links: list[list[str]] = []
    sites: dict[str, list[str]] = {}
    customers: dict[str, list[str]] = {}  # router: who hangs on it
    prefixes: dict[str, str] = {}  # prefix: router


class Story(msgspec.Struct, forbid_unknown_fields=True):
    """One file."""

    story: str
    steps: list[Step]
    network: Network = msgspec.field(default_factory=Network)
    settings: dict[str, Any] = {}
    expect: dict[str, Any] = {}


class StoryError(ConfigError):
    """A mistake in one step of a story."""

    def __init__(self, step: int, text: str) -> None:
        super().__init__(text)
        self.step = step


def read_story(path: Path) -> Story:
    """Return a story, or raise ConfigError with file and line."""
    try:
        import yaml
    except ImportError as error:
        raise ConfigError("stories are YAML: pip install 'tocsin[scenario]'") from error
    try:
        text = path.read_text("utf-8")
        tree = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        raise ConfigError(f"{place}: {' '.join((error.problem or str(error)).split())}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}") from error
    try:
        return msgspec.convert(tree, Story)
    except msgspec.ValidationError as error:
        found = _PLACE.search(str(error))
        line = line_of(text, found[1] if found else "")
        raise ConfigError(f"{path}:{line}: {_PLACE.sub('', str(error))}") from error


def line_of(text: str, place: str) -> int:
    """Return the line of a story at which something stands, as `.steps[2].alarms`."""
    import yaml

    node = yaml.compose(text, yaml.SafeLoader)
    for index, key in _STEP.findall(place):
        below = node.value if node is not None else []
        if index and isinstance(node, yaml.SequenceNode) and int(index) < len(below):
            node = below[int(index)]
        elif key and isinstance(node, yaml.MappingNode):
            node = next((value for name, value in below if name.value == key), node)
    return node.start_mark.line + 1 if node is not None else 1


def seconds_of(text: str | float) -> float:
    """Return the seconds of `90`, `90s`, `2m`, `1h30m`.

    >>> seconds_of("1h30m"), seconds_of(5)
    (5400.0, 5.0)
    """
    parts = _TIME.findall(str(text).replace(" ", ""))
    if not parts or "".join(a + b for a, b in parts) != str(text).replace(" ", ""):
        raise ConfigError(f"{text!r} is no time; write 90s, 2m, 1h30m")
    return sum(float(number) * _UNITS[unit or "s"] for number, unit in parts)


def expanded(text: str) -> list[str]:
    """Return a text with each `{1..3}` counted out.

    >>> expanded("down r{1..2}:1")
    ['down r1:1', 'down r2:1']
    """
    match = _RANGE.search(text)
    if match is None:
        return [text]
    first, last = int(match[1]), int(match[2])
    return [
        one
        for number in range(first, last + 1)
        for one in expanded(text[: match.start()] + str(number) + text[match.end() :])
    ]


def alarms_of(item: str | dict[str, Any]) -> list[dict[str, Any]]:
    """Return alarms as written: `KIND ENTITY [SEVERITY]`, or a table; `{1..9}` is counted out."""
    if isinstance(item, dict):
        return [{**item, "entity": entity} for entity in expanded(str(item["entity"]))]
    made = []
    for text in expanded(item):
        words = text.split()
        if len(words) not in (2, 3) or (len(words) == 3 and words[2] not in SEVERITIES):
            raise ConfigError(f"alarm {text!r}: write KIND ENTITY [SEVERITY]")
        made.append(dict(zip(("kind", "entity", "severity"), words, strict=False)))
    return made


def network_of(network: Network) -> FileNetworkMap:
    """Return the network map of a story. Interface i of a router ends its i-th link."""
    pairs = [*zip(network.ring, [*network.ring[1:], *network.ring[:1]], strict=True)]
    pairs += [pair for chain in network.chains for pair in _pairs_of(chain)]
    pairs += [(one[0], one[1]) for one in network.links]
    names = dict.fromkeys(name for pair in pairs for name in pair)
    names.update(dict.fromkeys(router for site in network.sites.values() for router in site))
    free = dict.fromkeys(names, 1)
    links, faces = [], []
    for a, b in pairs:
        name = f"{a}-{b}"
        links.append(LinkEntry(name=name, a=a, a_index=free[a], b=b, b_index=free[b]))
        for router in (a, b):
            faces.append(
                InterfaceEntry(router=router, index=free[router], name=f"et-0/0/{free[router]}",
                               link=name, speed=10_000_000_000)
            )  # fmt: skip
            free[router] += 1
    for router, customers in network.customers.items():
        for i, customer in enumerate(customers):
            faces.append(InterfaceEntry(router=router, index=1000 + i, customer=customer))
    site_of = {router: site for site, routers in network.sites.items() for router in routers}
    return FileNetworkMap(
        NetworkFile(
            router=[
                RouterEntry(name=name, address=f"127.1.{i // 250}.{i % 250 + 1}",
                            site=site_of.get(name, ""))
                for i, name in enumerate(names)
            ],
            interface=faces,
            link=links,
            prefix=[PrefixEntry(prefix=p, router=r) for p, r in network.prefixes.items()],
        )
    )  # fmt: skip


def _pairs_of(chain: Sequence[str]) -> Iterator[tuple[str, str]]:
    names = [name for text in chain for name in expanded(text)]
    yield from zip(names[:-1], names[1:], strict=True)
