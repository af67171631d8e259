"""`tocsin collectors list` shows whatever is registered, with what a person needs to configure it."""

import json

import click.testing
import pytest

from collectors.registry import COLLECTORS
from collectors.sources import SOURCES
from tocsin.cli.collectors import collectors


def run(*arguments: str) -> click.testing.Result:
    return click.testing.CliRunner().invoke(collectors, ["list", *arguments])


def test_every_collector_and_source_is_listed_with_its_options() -> None:
    rows = {row["kind"]: row for row in json.loads(run("-o", "json").output)}
    assert set(rows) >= {*COLLECTORS.ours, *SOURCES.ours}
    for kind, row in rows.items():
        assert row["title"], kind
        assert row["runs_in"] == ("node" if kind in COLLECTORS.ours else "gate")
        assert row["sheds"], f"{kind} does not say what it sheds under load"
        for option in (*row["options"], *row["decoder"]):
            assert set(option) == {"name", "type", "default", "required", "what"}
    assert rows["flow"]["transports"] == ["udp"]
    assert rows["bmp"]["transports"] == ["tcp", "tls"]
    assert rows["bmp"]["ports"]["tcp"][0] == 11019


def test_one_kind_is_shown_with_its_options_for_people() -> None:
    said = run("bmp").output
    assert '[collectors.NAME]  kind = "bmp", listen = "tcp://[::]:PORT"' in said
    assert "[collectors.NAME.options]" in said
    assert "[sources" not in said
    for option in json.loads(run("bmp", "-o", "jsonl").output)["options"]:
        assert option["name"] in said
    assert "under load: nothing: a router that sends faster" in said
    assert "[collectors.NAME.decoder]" not in said
    assert (
        "datagrams_per_second_max" in run("flow").output.partition("[collectors.NAME.decoder]")[2]
    )


def test_an_unknown_kind_is_refused() -> None:
    from telemetry.errors import ConfigError

    with pytest.raises(ConfigError, match="'nonsense'"):
        click.testing.CliRunner().invoke(collectors, ["list", "nonsense"], catch_exceptions=False)
