"""The configuration as a whole: every mistake is told at once, with its line and the fix."""

import math
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from alerting.sinks import SINKS
from collectors.registry import COLLECTORS
from collectors.sources import SOURCES
from detectors.registry import DETECTORS
from runtime.mistakes import structs_in
from telemetry.errors import ConfigError
from tocsin.config import Config, load_config
from tocsin.trial import mistakes

# (line, what is said of it)
WRONG = (
    ("[collectors.a]", ""),
    ('kind = "flwo"', "collectors.a.kind 'flwo' is not known; did you mean 'flow'?"),
    ('listen = "udp://0.0.0.0:205500"', "port of 0 to 65535"),
    ("[collectors.b]", ""),
    ('kind = "flow"', ""),
    ('listen = "tls://0.0.0.0:2055"', "flow comes over udp://"),
    ("[collectors.c]", ""),
    ('kind = "syslog"', ""),
    ('listen = "udp://0.0.0.0:5514"', ""),
    ("options = { patterns_maxx = 3 }", "did you mean `patterns_max`?"),
    ("[collectors.d]", ""),
    ('kind = "syslog"', ""),
    ('listen = "udp://0.0.0.0:5514"', "collectors.c listens there already"),
    ("[alerting.sinks.w]", "alerting.sinks.w.url is missing"),
    ('kind = "webhook"', ""),
    ("[alerting.routes.r]", ""),
    ('to = ["nobody"]', "alerting.routes.r.to: no sink 'nobody'"),
    ("[alerting.maintenance.a]", ""),
    ('start = "foo"', "'foo' is no time"),
    ("minutes = 60", ""),
    ("[alerting.maintenance.b]", ""),
    ('start = "2026-01-01T02:00"', "with days it is a time of day"),
    ("minutes = 60", ""),
    ('days = ["mon"]', ""),
    ("[alerting.maintenance.c]", ""),
    ('start = "02:00"', ""),
    ("minutes = 60", ""),
    ('days = ["mon"]', ""),
    ('zone = "Europe/Wien"', "'Europe/Wien' is no time zone"),
    ("[alerting.maintenance.d]", ""),
    ('start = "2026-01-01T02:00"', ""),
    ("minutes = 60", ""),
    ('zone = "America"', "'America' is no time zone"),
    ("[alerting.maintenance.e]", "must end within a week"),
    ('start = "02:00"', ""),
    ('days = ["mon"]', ""),
    ("minutes = 10081", ""),
    ("[alerting.maintenance.f]", "begins before 1824 or ends after 2116"),
    ('start = "2026-01-01T02:00"', ""),
    ("minutes = 99999999999", ""),
    ("[detection]", ""),
    ('zone = "Europe/Wien"', "'Europe/Wien' is no time zone"),
    ("[api]", ""),
    ('listen = "0.0.0.0:8470"', "api.token_file must name a file of tokens"),
    ('metrics_listen = "8470"', "is not host:port with a port of 0 to 65535"),
    ("[views.own.mine]", ""),
    ('key = ["source_as"]', ""),
    ('measures = ["octetts"]', "octetts is none of"),
)
# The same, of names and addresses that lead nowhere.
NOWHERE = (
    ("[alerting.sinks.f]", ""),
    ('kind = "pagerduty"', ""),
    (
        'url = "ftp://example.net/secret"',
        "alerting.sinks.f.url begins with 'ftp', it must begin with http:// or https://",
    ),
    ('token_file = "t"', ""),
    ("[alerting.sinks.g]", ""),
    ('kind = "webhook"', ""),
    ('url = "https:///hook"', "alerting.sinks.g.url names no host"),
    ("[alerting.sinks.h]", ""),
    ('kind = "syslog"', ""),
    ('url = "tcp://h:70000"', "alerting.sinks.h.url cannot be read: Port out of range"),
    ("[alerting.owners]", ""),
    ('netcool = "netcool"', ""),
    ('traps = "h"', ""),
    ('syslog = "nobody"', "alerting.owners.syslog = 'nobody': nothing of this name acknowledges"),
    ("[alerting.runbooks.a]", "alerting.runbooks.a: ${nope} is no field"),
    ('url = "https://wiki/${nope}"', ""),
    ("[detection.also.t]", ""),
    ('kind = "threshold"', ""),
    (
        'options = { view = "interface", measure = "octets" }',
        "detection.also.t.options: give `above`, `below` or both",
    ),
    ("[detection.also.u]", ""),
    ('kind = "threshold"', ""),
    (
        'options = { view = "nope", measure = "octets", above = 3.0 }',
        "options.view = 'nope' is none of exporter, interface",
    ),
    ("[detection.also.v]", ""),
    ('kind = "threshold"', ""),
    (
        'options = { view = "interface", measure = "octet", above = 3.0 }',
        "detection.also.v.options.measure 'octet' of view 'interface' is none of",
    ),
    ("[detection.forecast.limits.a]", ""),
    ('view = "nope"', "limits.a.view 'nope' is none of exporter, interface"),
    ("above = 3.0", ""),
    ("[detection.forecast.limits.b]", ""),
    ('view = "interface"', ""),
    ('measure = "octet"', "limits.b.measure 'octet' of view 'interface' is none of"),
    ("above = 3.0", ""),
)


@pytest.mark.parametrize("wrong", [WRONG, NOWHERE])
def test_all_mistakes_are_told_with_their_lines(
    tmp_path: Path, wrong: tuple[tuple[str, str], ...]
) -> None:
    file = tmp_path / "tocsin.toml"
    file.write_text("\n".join(line for line, _ in wrong), "utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    lines = str(caught.value).splitlines()
    assert lines[-1] == "The node was not started."
    for number, (_, words) in enumerate(wrong, 1):
        told = [line for line in lines if line.startswith(f"  {file}:{number}: ")]
        assert len(told) == bool(words), (number, lines)
        assert words in "".join(told)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("alerting.routes.r.escalate_minutes = -5", "escalate_minutes"),
        ("alerting.sinks.a = { kind = 'stdout', rate_per_minute = -1 }", "rate_per_minute"),
        ("views.lateness_seconds = -1.0", "lateness_seconds"),
        ("node.raw_ring_bytes = -1", "raw_ring_bytes"),
        ("alerting.sinks.a = { kind = 'syslog', url = 'udp://h:1', options = { facility = 99 } }", "facility"),
        ("detection.forecast.limits.a = { view = 'sample', above = nan }", "above = nan: a number is needed"),
        ("detection.also.a = { kind = 'threshold', options = { view = 'x', measure = 'y', above = nan } }",
         "above = nan: a number is needed"),
    ],
)  # fmt: skip
def test_numbers_that_can_do_nothing_but_harm(tmp_path: Path, line: str, words: str) -> None:
    file = tmp_path / "tocsin.toml"
    file.write_text(line, "utf-8")
    with pytest.raises(ConfigError, match=f"tocsin.toml:1: .*{words}"):
        load_config(file)


def test_what_happens_now_is_told_by_who_asks(tmp_path: Path) -> None:
    file = tmp_path / "tocsin.toml"
    file.write_text("[node]\nprofile = 'sit'\n", "utf-8")
    with pytest.raises(ConfigError, match=r"one of 'sensor', 'site', 'core'\.$"):
        load_config(file, then="")


def structs(kind: type[msgspec.Struct]) -> Iterator[type[msgspec.Struct]]:
    """Yield a struct and those within it."""
    yield kind
    for field in msgspec.structs.fields(kind):
        for inner, _ in structs_in(field.type):
            yield from structs(inner)


def test_no_span_of_time_is_infinite_or_no_number() -> None:
    """`checkpoint_seconds = inf`, a natural "never", was right and then ended the node."""
    kinds = [Config] + [
        registry.get(kind).options
        for registry in (COLLECTORS, SOURCES, SINKS, DETECTORS) for kind in registry.ours
    ]  # fmt: skip
    spans = {
        f"{one.__qualname__}.{field.name}": field.type
        for kind in kinds for one in structs(kind) for field in msgspec.structs.fields(one)
        if re.search("seconds|minutes|hours", field.name) and field.type is not int
    }  # fmt: skip
    assert len(spans) > 50
    for name, span in spans.items():
        for value in (math.inf, math.nan, 1e300, -1.0):
            with pytest.raises(msgspec.ValidationError):
                pytest.fail(f"{name} = {msgspec.convert(value, span)}")


def test_a_span_that_cannot_be_is_told_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "tocsin.toml"
    file.write_text("[node]\ncheckpoint_seconds = inf\n[views]\nlateness_seconds = nan\n", "utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert f"{file}:2: node.checkpoint_seconds: Expected `float` <= 315360000.0" in str(
        caught.value
    )
    assert f"{file}:4: views.lateness_seconds: Expected `float` >= 0.0" in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("tick_seconds", "1e-5", "views.tick_seconds is 1e-05, must be 0.001 at least"),
        (
            "lateness_seconds",
            "3e8",
            "views.lateness_seconds is 3e+08: more than 1000 ticks of 60 s",
        ),
        ("samples.tick_seconds", "1e-300", "views.samples.tick_seconds is 1e-300"),
        ("samples.lateness_seconds", "60001", "views.samples.lateness_seconds is 60001"),
        ("slow_samples.lateness_seconds", "1e6", "views.slow_samples.lateness_seconds is 1e+06"),
    ],
)
def test_ticks_have_a_length_and_few_are_open(
    tmp_path: Path, key: str, value: str, words: str
) -> None:
    file = tmp_path / "tocsin.toml"
    file.write_text(f"[views]\n{key} = {value}\n", "utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert f"{file}:2: {words}" in str(caught.value)


HEARD = """[collectors.a]
kind = "syslog"
listen = "udp://127.0.0.1:5514"
"""


@pytest.mark.parametrize(
    ("lines", "at", "words"),
    [
        pytest.param(
            '[collectors.b]\nkind = "bmp"\nlisten = "tls://127.0.0.1:1"', 6,
            "collectors.b.listen = 'tls://127.0.0.1:1' needs tls_certificate_file", id="tls",
        ),
        pytest.param(
            '[collectors.b]\nkind = "flow"\nlisten = "udp://127.0.0.1:1"\n'
            '[collectors.b.decoder]\nsampling_override = { "10.0.0.0/33" = 9 }', 8,
            "'10.0.0.0/33' is no network", id="sampling",
        ),
        pytest.param(
            '[collectors.b]\nkind = "snmp-trap"\nlisten = "udp://127.0.0.1:1"\n'
            'options = { mappings = ["/nowhere.toml"] }', 7, "b.options.mappings: /nowhere.toml", id="rules",
        ),
        pytest.param(
            '[alerting.sinks.b]\nkind = "webhook"\nurl = "http://h"\ntemplate = "/nowhere.json"', 7,
            "alerting.sinks.b.template '/nowhere.json'", id="template",
        ),
        pytest.param(
            '[alerting.sinks.b]\nkind = "webhook"\nurl = "http://h"\n'
            'options = { cleared_url = "ftp://h" }', 7,
            "alerting.sinks.b.options.cleared_url begins with neither http", id="cleared",
        ),
        pytest.param(
            '[alerting.sinks.b]\nkind = "webhook"\nurl = "http://h"\ntoken_file = "/nowhere"', 7,
            "alerting.sinks.b.token_file = '/nowhere': there is no such file", id="token",
        ),
        pytest.param(
            '[alerting.sinks.b]\nkind = "tmf642"\noptions = { listeners = ["h:1"] }', 6,
            "alerting.sinks.b.options.listeners: each begins with http", id="listeners",
        ),
        pytest.param(
            '[api]\ntoken_file = "/nowhere"', 5, "api.token_file = '/nowhere': there is no such file", id="api",
        ),
        pytest.param(
            '[detection.routes]\nown_prefixes = { "10.0.0.0/33" = [1] }', 5,
            "detection.routes.own_prefixes.10.0.0.0/33: '10.0.0.0/33'", id="prefixes",
        ),
        pytest.param(
            '[alerting.sinks.b]\nkind = "tmf642"\noptions = { listen = "here" }', 6,
            "alerting.sinks.b.options.listen = 'here' is not host:port", id="tmf642",
        ),
        pytest.param('[sources.b]\nkind = "snmp-poll"', 4, "no devices", id="poll"),
        pytest.param(
            '[sources.b]\nkind = "ves"\noptions = { listen = "https://127.0.0.1:1" }', 6,
            "sources.b.options.listen = 'https://127.0.0.1:1' needs certificate_file", id="ves",
        ),
        pytest.param(
            '[sources.b]\nkind = "pm-files"\noptions = { folder = "/nowhere" }', 6,
            "/nowhere is no folder", id="pm",
        ),
        pytest.param(
            '[sources.b]\nkind = "netcool"\noptions = { url = "ftp://x" }', 6,
            "'ftp://x' is no http", id="url",
        ),
    ],
)  # fmt: skip
def test_what_only_a_start_would_show_is_found_before(
    tmp_path: Path, lines: str, at: int, words: str
) -> None:
    file = tmp_path / "tocsin.toml"
    file.write_text(HEARD + lines, "utf-8")
    load_config(file)  # its types are right
    with pytest.raises(ConfigError) as caught:
        load_config(file, then="", further=mistakes)
    assert str(caught.value).startswith(f"{file}:{at}: ")
    assert words in str(caught.value)
    assert "not started" not in str(caught.value)
    file.write_text(HEARD, "utf-8")
    load_config(file, then="", further=mistakes)
