"""docs/bmp.md: every option with its default, every metric of a peer."""

import re
from pathlib import Path

import msgspec

from collectors.bmp.decoder import BmpOptions
from collectors.bmp.series import DELTAS

TEXT = (Path(__file__).parents[2] / "docs/bmp.md").read_text("utf-8")


def test_every_option_stands_with_its_default() -> None:
    told = dict(re.findall(r"^\| `(\w+)` \| ([\d.]+) \|", TEXT, re.M))
    assert {name: float(value) for name, value in told.items()} == {
        field.encode_name: float(field.default) for field in msgspec.structs.fields(BmpOptions)
    }


def test_every_metric_of_a_peer_is_named() -> None:
    named = set(re.findall(r"`(bgp_\w+)`", TEXT))
    assert {*DELTAS.values(), "bgp_prefixes"} <= named
