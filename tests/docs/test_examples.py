"""What the documents show is run: code, configuration and commands."""

import re
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest

from alerting.records.alarm import KINDS
from deploy.reference import metrics
from tocsin.cli import cli

ROOT = Path(__file__).parents[2]
DOCS = sorted([ROOT / "README.md", *ROOT.glob("docs/*.md")])


def blocks(path: Path, language: str) -> list[tuple[str, str]]:
    """Return (info string, text) of the fenced blocks of a language."""
    found = re.findall(r"^```(\S+)( [^\n]*)?\n(.*?)^```", path.read_text("utf-8"), re.S | re.M)
    return [(info.strip(), text) for name, info, text in found if name == language]


@pytest.mark.parametrize("part", ["detector", "sink", "collector", "source"])
def test_the_parts_of_extend_sit_their_exams(part: str) -> None:
    code = [text for info, text in blocks(ROOT / "docs/extend.md", "python") if info == part]
    assert len(code) == 2, "the part, and its exam"
    names: dict[str, Any] = {"__name__": f"example_{part}"}
    for text in code:
        exec(compile(text, f"docs/extend.md {part}", "exec"), names)


@pytest.mark.parametrize("path", DOCS, ids=lambda p: p.name)
def test_configuration_in_documents_is_toml(path: Path) -> None:
    for _, text in blocks(path, "toml"):
        tomllib.loads(text)


def commands(path: Path) -> list[list[str]]:
    """Return the `tocsin ...` command lines of a document, without comments."""
    text = path.read_text("utf-8")
    lines = re.findall(r"^(?:    |)(?:\.venv/bin/)?(tocsin [^\n#`|&]*)", text, re.M)
    lines += [line for _, block in blocks(path, "") for line in block.splitlines()]
    return [line.split()[1:] for line in lines]


@pytest.mark.parametrize("path", DOCS, ids=lambda p: p.name)
def test_commands_in_documents_have_verbs_and_options_that_exist(path: Path) -> None:
    context = click.Context(cli)
    for words in commands(path):
        command: click.Command | None = cli.get_command(context, words[0])
        assert command is not None, f"{path.name}: no verb {words[0]!r}"
        rest = words[1:]
        while isinstance(command, click.Group) and rest:
            command = command.get_command(context, rest[0])
            assert command is not None, f"{path.name}: {' '.join(words)}"
            rest = rest[1:]
        known = {o for p in command.params for o in (*p.opts, *p.secondary_opts)} | {"--help"}
        for word in rest:
            if word.startswith("-"):
                assert word.split("=")[0] in known, f"{path.name}: {' '.join(words)}: {word}"


def test_every_kind_of_alarm_is_explained() -> None:
    text = (ROOT / "docs/alarms.md").read_text("utf-8")
    assert set(re.findall(r"^## (\S+)", text, re.M)) == set(KINDS)
    for kind, (event_type, probable_cause) in KINDS.items():
        assert f"| `{kind}` | {event_type}, {probable_cause} |" in text


def test_every_metric_is_documented_and_every_documented_one_exists() -> None:
    text = (ROOT / "docs/metrics.md").read_text("utf-8")
    assert re.findall(r"^\| `([^`]+)`", text, re.M) == list(metrics())


@pytest.mark.parametrize("path", DOCS, ids=lambda p: p.name)
def test_files_that_documents_name_are_there(path: Path) -> None:
    for name in re.findall(r"`((?:docs|deploy|tests|collectors|detectors|runtime|alerting)/[\w/.-]+)`",
                           path.read_text("utf-8")):  # fmt: skip
        assert (ROOT / name).exists(), f"{path.name} names {name}"
