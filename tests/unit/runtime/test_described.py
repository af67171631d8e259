"""What can be set is told with type, default and meaning; nothing is left without a meaning."""

from typing import Any, Literal

import msgspec
import pytest

from alerting.sinks import SINKS
from collectors.registry import COLLECTORS
from collectors.sources import SOURCES
from detectors.registry import DETECTORS
from runtime.described import Option, options_of, schema_of
from runtime.registry import Registry
from runtime.settings import PositiveFloat, PositiveInt, Settings
from tocsin.config import Config


class Peer(Settings, frozen=True, kw_only=True):
    """One of many."""

    name: str  # what it is called


class Base(Settings, frozen=True, kw_only=True):
    """What is inherited."""

    size: PositiveInt = 4  # in rooms
    speed: PositiveFloat = 1.0


class Options(Base, frozen=True, kw_only=True):
    """All forms."""

    # Who may come,
    # and who not.
    hosts: tuple[str, ...] = ("a",)
    mode: Literal["on", "off"] = "on"  # what it does
    limit: float | None = (
        None  # none = no limit
    )  # fmt: skip
    peers: dict[str, Peer] = {}
    speed: PositiveFloat = 2.0  # quicker


def test_options_are_told_with_type_default_and_meaning() -> None:
    assert {one.key: one[1:] for one in options_of(Options)} == {
        "size": ("int", 4, "in rooms", False),
        "speed": ("float", 2.0, "quicker", False),
        "hosts": ("tuple", ("a",), "Who may come, and who not.", False),
        "mode": ("on or off", "on", "what it does", False),
        "limit": ("float or none", None, "none = no limit", False),
        "peers.*.name": ("str", None, "what it is called", True),
    }


def test_options_of_a_program_s_making_have_no_source_to_read() -> None:
    made = msgspec.defstruct(
        "Made", [("size", int, 3)], bases=(Settings,), kw_only=True, frozen=True
    )
    assert [one[:4] for one in options_of(made)] == [("size", "int", 3, "")]


def test_the_schema_says_what_keys_mean() -> None:
    defs = schema_of(Config)["$defs"]
    assert defs["NodeSettings"]["properties"]["workers"]["description"].startswith("processes that")
    assert defs["alerting.config.RouteSettings"]["properties"]["continue"]["description"]


@pytest.mark.parametrize("registry", [COLLECTORS, SOURCES, SINKS, DETECTORS], ids=lambda r: r.group)
def test_every_option_of_every_part_says_what_it_means(registry: Registry[Any]) -> None:
    said: list[Option] = []
    for kind in registry.ours:
        said += options_of(registry.get(kind).options)
    assert said
    assert [one.key for one in said if not one.what] == []


def test_every_setting_says_what_it_means() -> None:
    said = list(options_of(Config))
    assert len(said) > 150
    assert [one.key for one in said if not one.what] == []
