"""One library, the same bytes: kernels by numba, compiled ahead of time, and as plain Python."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from runtime.sealed import CHECKSUM_BYTES, seal
from tests.support.demo_capture import SECOND, START_NS, write_demo_capture
from tests.support.kernel_calls import WITHOUT
from tocsin.demo.network import load_demo_network
from tocsin.demo.traffic import Fault

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(900)  # every kernel is compiled: a minute on a machine of our own
# Nothing of numba can be imported, as on a box where it was never installed.
BLOCKED = """
import runpy, sys
sys.modules["numba"] = sys.modules["llvmlite"] = None
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def run(*command: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory, needs_compiler: None) -> Path:
    """Every kernel, compiled ahead of time for the least machine that we promise."""
    path = tmp_path_factory.mktemp("library") / "kernels.so"
    run("-m", "tocsin", "warm", "--ahead-of-time", "--output", str(path))
    return path


@pytest.fixture(scope="module")
def needs_compiler() -> None:
    import shutil

    from tests.conftest import leave_out

    if shutil.which("cc") is None:
        leave_out("needs cc: run deploy/test.sh as root, it installs it")


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two minutes of the demo network with a cut link and an attack."""
    network = load_demo_network()
    path = tmp_path_factory.mktemp("capture") / "demo.pcapng"
    faults = (
        Fault("link-cut", network.links_used()[0], START_NS + 70 * SECOND, START_NS + 95 * SECOND),
        Fault("exporter-down", "vie1", START_NS + 80 * SECOND, START_NS + 115 * SECOND),
    )
    write_demo_capture(path, seconds=120, faults=faults)
    return path


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory, capture: Path) -> Path:
    """What every kernel was given while captures of every protocol were replayed."""
    path = tmp_path_factory.mktemp("calls") / "calls.npz"
    captures = sorted((ROOT / "tests" / "captures").glob("*.pcapng"))
    run(
        "-m", "tests.support.kernel_calls", "record", str(path), str(capture),
        *map(str, captures), TOCSIN_KERNELS="numba",
    )  # fmt: skip
    return path


@pytest.fixture(scope="module")
def by_numba(calls: Path) -> list[str]:
    answer = run("-m", "tests.support.kernel_calls", "repeat", str(calls), TOCSIN_KERNELS="numba")
    return answer.splitlines()


@pytest.mark.slow
def test_every_kernel_was_called(by_numba: list[str]) -> None:
    from runtime.kernels import registered

    called = {line.split()[0] for line in by_numba}
    assert {kernel.name for kernel in registered()} - called == set(WITHOUT)


@pytest.mark.slow
def test_the_library_gives_the_bytes_that_numba_gives(
    calls: Path, by_numba: list[str], library: Path
) -> None:
    again = run(
        "-c", BLOCKED, "tests.support.kernel_calls", "repeat", str(calls),
        TOCSIN_KERNELS=str(library),
    )  # fmt: skip
    assert again.splitlines() == by_numba


@pytest.mark.slow
def test_plain_python_gives_the_bytes_that_numba_gives(
    calls: Path, by_numba: list[str], deep: bool
) -> None:
    if not deep:
        pytest.skip("minutes: runs in make test-deep")
    again = run("-m", "tests.support.kernel_calls", "repeat", str(calls), NUMBA_DISABLE_JIT="1")
    assert again.splitlines() == by_numba


@pytest.mark.slow
def test_replay_without_numba_gives_the_same_alerts(
    capture: Path, library: Path, tmp_path: Path
) -> None:
    config = tmp_path / "tocsin.toml"
    config.write_text(
        f"[views]\ntick_seconds = 5.0\nlateness_seconds = 1.0\n"
        f'[network]\nmap = "{ROOT / "deploy" / "demo" / "network.toml"}"\n'
        f"[detection]\nwarmup_ticks = 10\nwarmup_seconds = 50.0\nfalse_alerts_per_day = 100.0\n"
    )
    command = ("tocsin", "replay", str(capture), "-c", str(config))
    by_numba = run("-m", *command, TOCSIN_KERNELS="numba")
    assert '"kind":"link-cut"' in by_numba
    assert run("-c", BLOCKED, *command, TOCSIN_KERNELS=str(library)) == by_numba


@pytest.mark.slow
def test_the_receiving_kernel_of_the_library_receives(library: Path) -> None:
    text = """
import socket, sys
from collectors.listen.receive import Receiver
from runtime.clock import SystemClock
from runtime import kernels
assert kernels.LIBRARY is not None
taker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
taker.bind(("127.0.0.1", 0))
giver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for i in range(40):
    giver.sendto(bytes([i]) * (i + 1), taker.getsockname())
receiver = Receiver(taker, SystemClock(), datagrams_max=64)
block = receiver.receive(wait_ms=1000)
assert block.datagrams == 40, block.datagrams
assert block.payload.tobytes() == b"".join(bytes([i]) * (i + 1) for i in range(40))
assert set(block.exporter_port.tolist()) == {giver.getsockname()[1]}
assert "numba" not in sys.modules
"""
    run("-c", text, TOCSIN_KERNELS=str(library))


@pytest.mark.slow
@pytest.mark.parametrize("bound", [0, 1, 64])
def test_arguments_are_checked_as_strictly_as_by_numba(library: Path, bound: int) -> None:
    text = f"""
import numpy as np
from collectors.listen.receive import pack
size = {bound}
good = [np.zeros(9216 * size, np.uint8), np.ones(size, np.int32), size, np.zeros(size, np.uint8),
        np.zeros(size, np.int64)]
assert pack(*good) == size
frozen = np.zeros(size + 1, np.uint8)
frozen.flags.writeable = False
assert pack(frozen if not size else good[0], *good[1:]) == size
wrong = [
    (1, good[1].astype(np.int64)), (1, good[1].astype(np.uint32)), (1, good[1].astype(">i4")),
    (1, good[1].astype(np.float32)), (1, good[1].reshape(1, -1)), (1, good[1].tolist()), (1, None),
    (1, np.ones(2 * (size + 2), np.int32)[::2]), (3, frozen), (2, 1.0), (2, 1 << 63), (2, "1"),
    (1, np.zeros(4 * size + 5, np.uint8)[1:4 * size + 5].view(np.int32)),
]
for place, value in wrong:
    given = list(good)
    given[place] = value
    try:
        pack(*given)
    except TypeError as error:
        print(place, error)
        assert "collectors.listen.receive.pack: argument %d" % (place + 1) in str(error), error
    else:
        raise AssertionError((place, value))
try:
    pack(*good[:4])
except TypeError as error:
    assert "takes 5 arguments" in str(error)
else:
    raise AssertionError("four arguments")
"""
    said = run("-c", text, TOCSIN_KERNELS=str(library))
    assert len(said.splitlines()) == 13


@pytest.mark.slow
def test_a_stale_library_is_refused_in_one_sentence(
    library: Path, tmp_path: Path, cli: Callable[[Mapping[str, str]], tuple[int, str]]
) -> None:
    """What it was made of is in it: one other byte in its digest stands for one other source."""
    from runtime.kernel_library import source_digest
    from runtime.kernels import KERNEL_MODULES

    digest = source_digest(KERNEL_MODULES).encode()
    data = library.read_bytes()
    assert data.count(digest) == 1
    stale = tmp_path / "stale.so"
    stale.write_bytes(seal(data[:-CHECKSUM_BYTES].replace(digest, b"0" * len(digest))))
    code, said = cli({"TOCSIN_KERNELS": str(stale)})
    assert code == 2
    assert said == (
        f"tocsin: TOCSIN_KERNELS={stale}: {stale}: made from other sources than these (Tocsin "
        f"0.1.0); make it anew: tocsin warm --ahead-of-time. Nothing was started.\n"
    )


@pytest.mark.slow
def test_a_flipped_bit_is_refused_before_any_code_runs(
    library: Path, tmp_path: Path, cli: Callable[[Mapping[str, str]], tuple[int, str]]
) -> None:
    random, path = np.random.default_rng(5), tmp_path / "flipped.so"
    for _ in range(3):
        data = bytearray(library.read_bytes())
        data[random.integers(len(data))] ^= 1 << random.integers(8)
        path.write_bytes(data)
        code, said = cli({"TOCSIN_KERNELS": str(path)})
        assert (code, said.count("\n")) == (2, 1)
        assert "damaged, cut or stripped" in said
        assert "make it anew: tocsin warm --ahead-of-time. Nothing was started." in said


def test_neither_numba_nor_a_library_is_one_sentence(
    cli: Callable[[Mapping[str, str]], tuple[int, str]],
) -> None:
    code, said = cli({"TOCSIN_KERNELS": "numba"})
    assert code == 2
    assert said.count("\n") == 1
    assert "no compiled kernels: numba is not installed" in said
    assert "pip install 'tocsin[jit]'" in said


@pytest.mark.parametrize(
    ("content", "why"),
    [
        pytest.param(None, "no such kernel library", id="missing"),
        pytest.param(b"", "damaged, cut or stripped", id="empty"),
        pytest.param(b"\x7fELF" + bytes(200), "damaged, cut or stripped", id="cut"),
        pytest.param(seal(b""), "not a kernel library for this machine", id="nothing in it"),
        pytest.param(
            seal(b"\x7fELF" + bytes(200)), "not a kernel library for this machine", id="foreign"
        ),
    ],
)
def test_a_bad_file_is_named(
    tmp_path: Path,
    content: bytes | None,
    why: str,
    cli: Callable[[Mapping[str, str]], tuple[int, str]],
) -> None:
    path = tmp_path / "kernels.so"
    if content is not None:
        path.write_bytes(content)
    code, said = cli({"TOCSIN_KERNELS": str(path)})
    assert (code, said.count("\n")) == (2, 1)
    assert why in said
    assert str(path) in said


@pytest.fixture
def cli(tmp_path: Path) -> Callable[[Mapping[str, str]], tuple[int, str]]:
    """Run `tocsin replay` on a box without numba; return the exit code and what it says."""

    def start(environment: Mapping[str, str]) -> tuple[int, str]:
        capture = next((ROOT / "tests" / "captures").glob("*.pcapng"))
        done = subprocess.run(
            [sys.executable, "-c", BLOCKED, "tocsin", "replay", str(capture)],
            capture_output=True, text=True, check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        )  # fmt: skip
        return done.returncode, done.stderr

    return start
