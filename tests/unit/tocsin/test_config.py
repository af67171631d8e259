"""The configuration as a whole: every mistake is told at once, with its line and the fix."""

from pathlib import Path

import pytest

from telemetry.errors import ConfigError
from tocsin.config import load_config

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
    ("[alerting.sinks.w]", "alerting.sinks.w.url is missing"),
    ('kind = "webhook"', ""),
    ("[alerting.routes.r]", "no sink 'nobody'"),
    ('to = ["nobody"]', ""),
    ("[api]", ""),
    ('listen = "0.0.0.0:8470"', "api.token_file must name a file of tokens"),
    ('metrics_listen = "8470"', "is not host:port with a port of 0 to 65535"),
    ("[views.own.mine]", "octetts is none of"),
    ('key = ["source_as"]', ""),
    ('measures = ["octetts"]', ""),
)


def test_all_mistakes_are_told_with_their_lines(tmp_path: Path) -> None:
    file = tmp_path / "tocsin.toml"
    file.write_text("\n".join(line for line, _ in WRONG), "utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    lines = str(caught.value).splitlines()
    assert lines[-1] == "The node was not started."
    for number, (_, words) in enumerate(WRONG, 1):
        told = [line for line in lines if line.startswith(f"  {file}:{number}: ")]
        assert len(told) == bool(words), (number, lines)
        assert words in "".join(told)


def test_what_happens_now_is_told_by_who_asks(tmp_path: Path) -> None:
    file = tmp_path / "tocsin.toml"
    file.write_text("[node]\nprofile = 'sit'\n", "utf-8")
    with pytest.raises(ConfigError, match=r"one of 'sensor', 'site', 'core'\.$"):
        load_config(file, then="")
