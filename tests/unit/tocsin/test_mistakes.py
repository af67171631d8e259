"""A user's mistake is one sentence and exit code 1 or 2, with every verb. Never a traceback."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from tocsin.cli import VERBS, cli

UNDER = {"config": "check"}  # a group: its first verb stands for it


def said(*arguments: str, cwd: Path) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "tocsin", *arguments],
        cwd=cwd,
        env={
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parents[3]),
            "TOCSIN_STATE_DIR": str(cwd),
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files a user may give by mistake."""
    (tmp_path / "noise.pcap").write_bytes(bytes(range(256)) * 20)
    (tmp_path / "empty.pcapng").write_bytes(b"")
    (tmp_path / "noise.tocsin").write_bytes(b"PK\x03\x04 not a zip")
    (tmp_path / "text.tocsin").write_text("hello", "utf-8")
    (tmp_path / "wrong.toml").write_text("[node]\nprofil = 'site'\n", "utf-8")
    (tmp_path / "broken.toml").write_text("[node\n", "utf-8")
    (tmp_path / "escapes.ics").write_text("BEGIN:VCALENDAR\r\nOOPS\x1b[2J\r\n", "utf-8")
    (tmp_path / "deep.json").write_text("[" * 100_000, "utf-8")
    (tmp_path / "folder").mkdir()
    return tmp_path


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_an_unknown_option_is_usage(verb: str, folder: Path) -> None:
    names = [verb, UNDER[verb]] if verb in UNDER else [verb]
    code, text = said(*names, "--no-such-option", cwd=folder)
    assert code == 2, text
    assert "no-such-option" in text
    assert "Traceback" not in text


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        pytest.param("nosuchverb", 2, "No such command", id="verb"),
        pytest.param("decode absent.pcap", 2, "absent.pcap: no such file", id="decode-missing"),
        pytest.param("decode folder", 2, "is a folder", id="decode-folder"),
        pytest.param("decode", 2, "Missing argument", id="decode-nothing"),
        pytest.param("decode noise.pcap -o xml", 2, "Invalid value", id="decode-format"),
        pytest.param("replay absent.pcap", 2, "absent.pcap: no such file", id="replay-missing"),
        pytest.param("replay noise.tocsin", 1, "no case file", id="replay-noise-case"),
        pytest.param("replay text.tocsin", 1, "no case file", id="replay-text-case"),
        pytest.param("replay folder", 2, "no journal is in this folder", id="replay-folder"),
        pytest.param("replay empty.pcapng --speed fast", 2, "neither max nor a number", id="speed"),
        pytest.param("replay empty.pcapng --speed -1", 2, "more than 0", id="speed-negative"),
        pytest.param("replay noise.pcap -c wrong.toml", 2, "did you mean `node.profile`", id="key"),
        pytest.param("config check -c broken.toml", 2, "not valid TOML", id="config-broken"),
        pytest.param("config check -c absent.toml", 2, "absent.toml", id="config-missing"),
        pytest.param("config show -c wrong.toml", 2, "wrong.toml:2", id="config-line"),
        pytest.param("run -c wrong.toml", 2, "wrong.toml:2", id="run"),
        pytest.param("doctor -c wrong.toml", 2, "wrong.toml:2", id="doctor"),
        pytest.param("outbox list --only bogus", 2, "'waiting', 'held', 'sent'", id="outbox"),
        pytest.param("handover --since 2199-01-01", 2, "is still to come", id="handover"),
        pytest.param("trace abcdef12", 2, "--state names the folder", id="trace"),
        pytest.param("trace --list", 2, "--state names the folder", id="trace-list"),
        pytest.param("capture --around abcdef12 --output c.tocsin", 2, "--state names", id="capture"),
        pytest.param("capture --around noon --output c.tocsin", 2, "is no time", id="capture-time"),
        pytest.param("capture --around 2h --output c.tocsin", 2, "holds no tick", id="capture-none"),
        pytest.param("correlate --alarms noise.pcap", 2, "a binary file", id="correlate-binary"),
        pytest.param("score noise.pcap --output s", 1, "a binary file", id="score-binary"),
        pytest.param("alarm works noise.pcap", 2, "no iCalendar", id="works-binary"),
        pytest.param("alarm works escapes.ics", 2, r"OOPS\x1b[2J", id="works-escapes"),
        pytest.param("grafana push foo", 2, "no address of a Grafana", id="grafana-url"),
        pytest.param("grafana push http://127.0.0.1:9", 2, "Connection refused; does", id="grafana"),
        pytest.param("correlate --alarms deep.json", 2, "neither CSV", id="correlate-deep"),
        pytest.param("alarm silence x --for 999999d", 2, "more than ten years", id="silence"),
        pytest.param("outbox approve 9999999999999999999 --by a", 2, "not in the range", id="number"),
        pytest.param("demo --speed max", 2, "--speed goes with --days", id="demo"),
        pytest.param("demo --for soon", 2, "Invalid value", id="demo-for"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence(line: str, code: int, words: str, folder: Path) -> None:
    found, text = said(*line.split(), cwd=folder)
    assert "Traceback" not in text, text
    assert words in text, text
    assert found == code, text
    assert all(c.isprintable() or c == "\n" for c in text), "no file tells the terminal what to do"


@pytest.mark.parametrize("name", ["noise.pcap", "empty.pcapng"])
@pytest.mark.parametrize("verb", ["decode", "replay"])
def test_a_corrupt_capture_is_said(verb: str, name: str, folder: Path) -> None:
    code, text = said(verb, name, cwd=folder)
    assert "Traceback" not in text, text
    assert code in (1, 2, 3), text
    assert name in text or "not decoded" in text


def test_a_case_that_was_changed_is_refused(folder: Path) -> None:
    import zipfile

    case = folder / "changed.tocsin"
    with zipfile.ZipFile(case, "w") as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("manifest.json", json.dumps({"sha256": {"config.json": "0" * 64}}))
    code, text = said("replay", case.name, cwd=folder)
    assert (code, "is not what was captured" in text) == (1, True), text
    with zipfile.ZipFile(case, "w") as archive:
        archive.writestr("../leaves", "x")
        archive.writestr("manifest.json", json.dumps({"sha256": {"../leaves": "0" * 64}}))
    code, text = said("replay", case.name, cwd=folder)
    assert (code, "leaves the case" in text) == (1, True), text
    assert not (folder.parent / "leaves").exists()


def commands(group: click.Group, *names: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every command below a group with the words that call it."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*names, name), command
        if isinstance(command, click.Group):
            yield from commands(command, *names, name)


def test_no_number_of_any_verb_may_be_nan_or_without_end() -> None:
    checked = 0
    for words, command in commands(cli):
        for option in command.params:
            if isinstance(option.type, click.types.FloatParamType | click.FloatRange):
                for value in ("nan", "inf", "1e400"):
                    done = CliRunner().invoke(cli, [*words, option.opts[0], value])
                    assert done.exit_code == 2, (words, option.opts, value)
                    assert "is no finite number" in done.output or "not in the range" in done.output
                checked += 1
    assert checked >= 7
