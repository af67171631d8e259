"""docs/sinks.md: every kind is in its table, and its examples are a configuration that is right."""

import re
from pathlib import Path

from alerting.sinks import SINKS
from alerting.words.templating import NAMES, shipped
from tocsin.config import load_config

TEXT = (Path(__file__).parents[2] / "docs" / "sinks.md").read_text("utf-8")


def test_every_kind_and_template_is_documented() -> None:
    told = {
        name
        for line in re.findall(r"^\| (`.*?) \|", TEXT, re.MULTILINE)
        for name in re.findall(r"`([^`]+)`", line)
    }
    assert told == set(SINKS.ours)
    assert all(f'"{name}"' in TEXT for name in shipped())
    assert all(f"`{name.split('.')[0]}" in TEXT for name in NAMES if name not in ("alarm_id",))


def test_the_examples_are_a_configuration(tmp_path: Path) -> None:
    path = tmp_path / "sinks.toml"
    named = "".join(f'[alerting.sinks.{name}]\nkind = "stdout"\n' for name in ("chief", "ams-noc"))
    path.write_text("\n".join(re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)) + named)
    made = load_config(path).alerting
    assert len(made.sinks) > 12
    assert set(made.routes) == {"all", "grave", "amsterdam", "by-site"}
