"""What must stay light, and names that must not appear."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tocsin import PACKAGES

ROOT = Path(__file__).parents[2]


def loaded_by(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {code}; print(*sys.modules)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("code", "heavy"),
    [
        pytest.param("import tocsin.cli", {"numpy", "numba", "chdb", "torch", "starlette"}, id="help"),
        pytest.param("import telemetry.batch, runtime.component, runtime.journal",
                     {"numba", "chdb", "torch", "starlette"}, id="bottom"),
        pytest.param("import tocsin.node.__main__", {"numba", "chdb", "torch", "starlette", "uvicorn", "pandas",
                     "pyarrow", "river", "scipy", "hashlib", "ssl", "email", "html", "importlib.metadata", "tempfile",
                     "clickhouse_driver"}, id="node"),  # numba comes with the first kernel that has to be compiled
        pytest.param("import os; os.environ['TOCSIN_KERNELS'] = 'numba'; from collectors.listen import gather;"
                     "gather.gather.compile(); assert 'numba' in sys.modules", {"scipy"}, id="kernel"),
        pytest.param("import tocsin.desk.__main__", {"numba", "scipy", "pandas", "pyarrow", "river", "chdb",
                     "clickhouse_driver"}, id="desk"),
        pytest.param("import history.server_store", {"pandas", "chdb"}, id="history-on-servers"),
        pytest.param("import tocsin.gate.__main__", {"chdb", "numpy", "torch", "starlette", "hashlib", "ssl", "email",
                     "html", "http.client", "subprocess", "tomllib"}, id="gate"),
        pytest.param("import tocsin.supervisor.__main__", {"numpy", "zmq", "msgspec", "click", "starlette", "ctypes",
                     "inspect"}, id="supervisor"),
        pytest.param("import tocsin.watchdog.__main__", {"numpy", "msgspec", "zmq", "hashlib", "subprocess",
                     "inspect"}, id="watchdog"),
        pytest.param("from alerting.sinks import SINKS; [SINKS.get(k) for k in ('webhook', 'pagerduty', 'syslog')]",
                     {"ssl", "http.client", "email", "hashlib", "tempfile"}, id="sinks-in-the-node"),
        pytest.param("import http.client, alerting.sinks.http, runtime.trust",
                     {"urllib.request", "hashlib", "tempfile"}, id="https"),
        pytest.param("from alerting.sinks import SINKS; [SINKS.get(k) for k in SINKS.kinds()]",
                     {"numpy", "numba"}, id="sinks"),
    ],
)  # fmt: skip
def test_heavy_libraries_stay_behind_their_door(code: str, heavy: set[str]) -> None:
    assert heavy.isdisjoint(loaded_by(code))


def test_scipy_that_kernels_do_without_is_there_for_others() -> None:
    pytest.importorskip("scipy")
    code = "import os; os.environ['TOCSIN_KERNELS'] = 'numba'; from collectors.listen import gather"
    code += "; gather.gather.compile()"
    assert {"numba", "scipy.linalg"} <= loaded_by(f"{code}; import scipy.linalg")


def test_no_drawer_files() -> None:
    bad = {"utils.py", "helpers.py", "common.py", "manager.py", "base.py", "misc.py"}
    found = [p for name in PACKAGES for p in (ROOT / name).rglob("*.py") if p.name in bad]
    assert found == []


def test_every_kernel_file_is_in_the_list_that_warm_compiles() -> None:
    from runtime.kernels import KERNEL_MODULES

    files = {
        ".".join(p.relative_to(ROOT).with_suffix("").parts)
        for name in PACKAGES
        for p in (ROOT / name).rglob("*.py")
        if re.search(r"^@kernel\(", p.read_text("utf-8"), re.MULTILINE)
    }
    assert files == set(KERNEL_MODULES)


def test_links_in_documents_resolve() -> None:
    broken = []
    for document in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)", document.read_text("utf-8")):
            if "://" not in target and not (document.parent / target).exists():
                broken.append(f"{document.name}: {target}")
    assert broken == []


def test_constraints_are_pins_without_an_index() -> None:
    for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            assert re.fullmatch(r"[A-Za-z0-9_.\-]+==[0-9A-Za-z.+\-]+", line), line
    text = (ROOT / "constraints.txt").read_text("utf-8")
    assert "://" not in text
    assert "--index" not in text


def test_every_dependency_is_pinned() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    pinned = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines()
        if "==" in line
    }
    extras = project["optional-dependencies"]
    wanted = [
        *project["dependencies"],
        *(d for name in extras if name != "train" for d in extras[name]),
    ]
    assert [d for d in wanted if d.lower().replace("_", "-") not in pinned] == []
