"""A program that has ended is told with its last words; a kernel library that is missing, before a start."""

import sys
from pathlib import Path

import pytest

from perf.footprint import environment_of
from perf.programs import Program
from runtime import kernel_library


def test_the_last_words_of_a_program_that_ended(tmp_path: Path) -> None:
    code = "print(*range(30), sep='\\n', flush=True); raise SystemExit('no room')"
    ended = Program([sys.executable, "-c", code], tmp_path, name="peer")
    ended.wait(20)
    with pytest.raises(SystemExit) as raised:
        ended.must_run()
    said = str(raised.value).splitlines()
    assert said[0] == "peer ended with 1:"
    assert said[-1] == "no room"
    assert len(said) == 21


def test_a_program_that_runs_is_let_be(tmp_path: Path) -> None:
    with Program(["sleep", "60"], tmp_path) as running:
        running.must_run()
        running.kill()


def test_without_a_kernel_library_it_says_at_once_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel_library, "ROOT", tmp_path)
    with pytest.raises(SystemExit, match=r"no kernel library for .*\nmake library"):
        environment_of("library", tmp_path)
    assert environment_of("numba", tmp_path)["TOCSIN_KERNELS"] == "numba"
