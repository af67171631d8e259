"""docs/configure.md, docs/commands.md and docs/metrics.md say what the code has, and nothing else."""

import re
from pathlib import Path

from deploy.reference import configure
from runtime.mistakes import known_keys
from tocsin.cli import VERBS
from tocsin.config import Config

DOCS = Path(__file__).parents[2] / "docs"


def headings(name: str) -> set[str]:
    text = (DOCS / name).read_text("utf-8")
    return set(re.findall(r"^\| `([^`]+)`", text, re.MULTILINE))


def test_every_setting_is_documented_as_the_code_says_it_today() -> None:
    text = (DOCS / "configure.md").read_text("utf-8")
    assert text == "\n".join(configure()) + "\n", "run `python deploy/reference.py`"
    leaves = set(known_keys(Config))
    leaves -= {key for key in leaves if any(other.startswith(key + ".") for other in leaves)}
    assert headings("configure.md") >= leaves


def test_every_verb_is_documented() -> None:
    assert headings("commands.md") == set(VERBS)
