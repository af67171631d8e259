"""`make test-deep`: every long form is in it, a failure hides nothing, and what is done is done."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deploy import deep

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[3]
LONG = re.compile(r"\bdeep: bool|environ\.get\(\"DEEP\"\)|^@given|max_examples", re.MULTILINE)


def test_every_long_form_is_in_one_part() -> None:
    files: list[Path] = []
    for part in deep.PARTS:
        if part.deep:
            for name in part.tests:
                path = ROOT / name
                files += sorted(path.rglob("test_*.py")) if path.is_dir() else [path]
    assert len(files) == len(set(files)), "none twice"
    assert len({part.name for part in deep.PARTS}) == len(deep.PARTS)
    long = {p for p in (ROOT / "tests").rglob("test_*.py") if LONG.search(p.read_text("utf-8"))}
    assert long - {Path(__file__)} <= set(files)


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three small parts in the place of the long ones, the second one fails; the folder of their tests."""
    for name, code in (("a", "pass"), ("b", "assert DEEP == 'no'"), ("c", "assert DEEP == ''")):
        text = f"import os\nDEEP = os.environ['DEEP']\ndef test_{name}(): {code}\n"
        (tmp_path / f"test_{name}.py").write_text(text, "utf-8")
    made = tuple(
        deep.Part(name, 1, f"shows {name}", (str(tmp_path / f"test_{name}.py"),), deep=name != "c")
        for name in "abc"
    )
    monkeypatch.setattr(deep, "PARTS", made)
    monkeypatch.setattr(deep, "STATE", tmp_path / "deep.json")
    monkeypatch.setattr(deep, "LOGS", tmp_path / "logs")
    monkeypatch.setattr(deep, "LEFT_OUT", tmp_path / "left-out")
    monkeypatch.setenv("WORKERS", "0")
    return tmp_path


def test_a_failure_hides_no_other_and_what_passed_is_not_run_again(
    parts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert deep.main([]) == 1
    said = capsys.readouterr().out
    for name, word in (("a", "passed"), ("b", "FAILED"), ("c", "passed")):
        assert re.search(rf"^  {name} +{word} .*1 {word.lower()}", said, re.MULTILINE), said
    assert deep.main(["--plan"]) == 0
    assert "Plan: 1 of 3 parts, about 1 minutes" in capsys.readouterr().out
    text = (parts / "test_b.py").read_text("utf-8")
    (parts / "test_b.py").write_text(text.replace("'no'", "'1'"), "utf-8")
    assert deep.main([]) == 0
    said = capsys.readouterr().out
    assert "== b (1 of 1)" in said
    assert "== a (" not in said
    assert deep.main(["--plan", "--again", "a", "c"]) == 0
    assert "Plan: 2 of 2 parts" in capsys.readouterr().out
    (parts / "deep.json").write_text("{", "utf-8")  # damaged: nothing is known to have passed
    assert deep.main(["--plan"]) == 0
    assert "Plan: 3 of 3 parts" in capsys.readouterr().out


def test_no_such_part_is_told_before_anything_runs() -> None:
    done = subprocess.run(
        [sys.executable, "deploy/deep.py", "--plan", "kils"],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stdout.startswith("no part kils; there are mutants, checked, ")


def test_what_is_stopped_says_so_and_keeps_what_passed(
    parts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = f"import os, signal\ndef test_b(): os.kill({os.getpid()}, signal.SIGINT)\n"
    (parts / "test_b.py").write_text(text, "utf-8")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert deep.main([]) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    said = capsys.readouterr().out
    assert "== deep: stopped; the same command goes on" in said
    assert re.search(r"^  a +passed ", said, re.MULTILINE)
    assert re.search(r"^  c +not run$", said, re.MULTILINE)
