"""constraints.txt resolves with wheels only, for edge boxes too. Asks the package index: deep form only."""

import subprocess
import sys
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
