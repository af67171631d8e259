"""The newcomer's path: `make run` with an empty home, then again; no route out, a busy port, a home that refuses."""

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import leave_out

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.live


def make_run(home: Path, before: str = "", seconds: int = 3) -> subprocess.CompletedProcess[str]:
    """Run `make run` in a network namespace that has a loopback and no route anywhere."""
    script = f"ip link set lo up; {before}\nmake run FOR={seconds}"
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG")}
    return subprocess.run(
        ["unshare", "--net", "bash", "-c", script],
        cwd=ROOT,
        env={**kept, "HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not any((ROOT / ".venv").glob(".made-*")):
        leave_out("needs an environment made by `make setup-dev`")
    return tmp_path_factory.mktemp("home")


@pytest.mark.timeout(1_300)  # two runs, each with a limit of its own
def test_two_runs_without_a_network(home: Path, needs: Callable[..., None]) -> None:
    needs("unshare", "ip", "make", root=True)
    first = make_run(home)
    said = first.stdout + first.stderr
    assert first.returncode == 0, said
    counts = [tuple(map(int, pair)) for pair in re.findall(r"compiling (\d+)/(\d+)", said)]
    assert counts, said
    assert counts[-1][0] == counts[-1][1], "the compile step is bounded and ends"
    for text in ("two weeks of history", "console  http://127.0.0.1:8470/", "fault", "Try next"):
        assert text in said
    assert not list(ROOT.glob("runtime/__pycache__/*.nbi")), (
        "kernels are cached in the state folder"
    )

    busy = (
        f"{ROOT}/.venv/bin/python -c 'import socket, time\n"
        's = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("127.0.0.1", 2055))\n'
        "time.sleep(60)' & held=$!; trap 'kill $held' EXIT; sleep 1"
    )
    second = make_run(home, before=busy)
    said = second.stdout + second.stderr
    assert second.returncode == 0, said
    assert "compiling" not in said
    assert "two weeks" not in said
    assert "downloaded" not in said
    assert "port 2055 is busy, flow is on 2056" in said
    assert "udp://127.0.0.1:2056" in said


def test_a_home_that_refuses_is_said_and_the_demo_runs(
    home: Path, needs: Callable[..., None]
) -> None:
    needs("unshare", "ip", "make", root=True)
    # /proc takes no folders from anybody, root included. Kernels of the run before are found again.
    kernels = next((home / ".local/state/tocsin/kernels").glob("*"), home)
    done = make_run(Path("/proc/self"), before=f"export NUMBA_CACHE_DIR={kernels}")
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert re.search(r"/proc/self/\S+: .*; this run keeps its state in /\S+", said)
    assert "Try next" in said
    (instead,) = set(re.findall(r"keeps its state in (/\S+) and", said))
    assert not Path(instead).exists(), "what was kept for this run is gone after it"
