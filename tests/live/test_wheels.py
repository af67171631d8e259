"""constraints.txt resolves with wheels only, for edge boxes too. Asks the package index: deep form only."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("python", ["3.11", "3.12"])
@pytest.mark.parametrize("machine", ["aarch64", "x86_64"])
def test_every_pin_has_a_wheel(machine: str, python: str, deep: bool, tmp_path: Path) -> None:
    if not deep:
        pytest.skip("asks the package index: runs in make test-deep")
    platforms = [
        f"manylinux_2_28_{machine}",
        f"manylinux_2_17_{machine}",
        f"manylinux2014_{machine}",
    ]
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--dry-run",
        "--ignore-installed",
        "--no-deps",
    ]
    command += ["--only-binary=:all:", "--implementation", "cp", "--python-version", python]
    command += [f"--platform={name}" for name in platforms]
    command += ["--target", str(tmp_path), "--requirement", str(ROOT / "constraints.txt")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    would = next(line for line in done.stdout.splitlines() if line.startswith("Would install"))
    pins = [
        line for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines() if "==" in line
    ]
    assert len(would.split()) - 2 == len(pins)


def test_the_wheel_carries_what_runs_beside_the_code(deep: bool, tmp_path: Path) -> None:
    if not deep:
        pytest.skip("fetches the build backend: runs in make test-deep")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "-w",
        str(tmp_path),
        str(ROOT),
    ]
    subprocess.run(command, check=True, timeout=280)
    (wheel,) = tmp_path.glob("tocsin-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {
        "deploy/demo/network.toml",
        "deploy/demo/demo.toml",
        "history/ddl/0001_tables.sql",
        "runtime/kernel_library.c",
        "tocsin/api/console.html",
    } <= names
    assert not [name for name in names if name.startswith(("tests/", "perf/", "../"))]
