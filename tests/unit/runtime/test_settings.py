"""A wrong setting is one sentence with file, line, key, nearest known key and what happens now."""

from pathlib import Path
from typing import Literal

import pytest

from runtime.mistakes import Origin, known_keys
from runtime.settings import PositiveInt, Settings, load
from telemetry.errors import ConfigError


class Part(Settings, frozen=True, kw_only=True):
    state_dir: str = "x"
    workers: PositiveInt = 1
    mode: Literal["quick", "exact"] = "exact"


class Whole(Settings, frozen=True, kw_only=True):
    node: Part = Part()
    collectors: dict[str, Part] = {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(
            "[node]\nstate_dri = 'a'\n",
            r"t\.toml:2: node\.state_dri: unknown key `state_dri`; "
            r"did you mean `node\.state_dir`\? The node was not started\.",
            id="typo",
        ),
        pytest.param("[node]\n\nworkers = 0\n", r"t\.toml:3: node\.workers: .*>= 1", id="zero"),
        pytest.param("[collectors.a]\nworkers = 'q'\n", r"t\.toml:2: .*got `str`", id="in-table"),
        pytest.param(
            "[collectors.a]\nworkers = 1\n[collectors.b]\nworkers = 'q'\n",
            r"t\.toml:4: collectors\.b\.workers: .*got `str`",
            id="same-key-in-two-tables",
        ),
        pytest.param(
            "collectors = {a = {mode = 'slow'}}\n",
            r"t\.toml:1: collectors\.a\.mode: Invalid enum value 'slow'; one of 'quick', 'exact'\.",
            id="closed-set",
        ),
        pytest.param(
            "[node]\nworkers = 0\nstate_dri = 'a'\n[collectors.a]\nmode = 1\n",
            r"^3 mistakes:\n(  .*t\.toml:[235]: .*\n){3}The node was not started\.$",
            id="all-at-once",
        ),
        pytest.param("x =", "not valid TOML", id="no-toml"),
    ],
)
def test_wrong_settings_say_what_to_do(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "t.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load(file, Whole, environment={})


def test_a_sentence_that_begins_with_a_key_is_about_that_one() -> None:
    tree = {"sinks": {"a": {"retries": 3, "url": "ftp://x"}}}
    told = Origin(tree=tree).told("sinks.a: url must be https, 3 tries were made")
    assert told == "configuration: sinks.a.url must be https, 3 tries were made"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.toml: No such file"):
        load(tmp_path / "absent.toml", Whole, environment={})


def test_environment_beats_file_and_flags_beat_both(tmp_path: Path) -> None:
    file = tmp_path / "t.toml"
    file.write_text("[node]\nworkers = 2\nstate_dir = 'file'\n")
    made = load(
        file,
        Whole,
        environment={"TOCSIN_NODE__WORKERS": "3", "TOCSIN_NODE__STATE_DIR": "env"},
        flags={"node.state_dir": "flag", "node.workers": None},
    )
    assert made.node == Part(state_dir="flag", workers=3)


def test_a_wrong_environment_variable_is_named() -> None:
    with pytest.raises(ConfigError, match="environment TOCSIN_NODE__WORKERS"):
        load(None, Whole, environment={"TOCSIN_NODE__WORKERS": "-1"})


def test_every_key_is_known() -> None:
    assert "collectors.*.workers" in known_keys(Whole)
