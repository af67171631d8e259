"""Fixtures and rules that hold for every test.

A test that needs something this machine has not is left out with a reason; with CI=true that is a
failure, so that nothing goes untested unseen.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support import processes

DEEP = bool(os.environ.get("DEEP"))
CI = os.environ.get("CI", "") == "true"

settings.register_profile("ci", derandomize=True, deadline=None, max_examples=60)
settings.register_profile("deep", deadline=None, max_examples=3000)
settings.load_profile("deep" if DEEP else "ci")
SECONDS_MAX = 300  # pyproject.toml
DEEP_PATIENCE = 6  # times as long may a long form take, so that a busy machine ends it, too
LEFT_OUT = "left out: "  # so begins why a test is left out that another machine would run


# What needs more than the environment, or longer than two minutes, is of the tier `whole`.
WHOLE = tuple(f"tests/{name}/" for name in ("conformance", "scenario", "live", "fuzz"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--tier", choices=("fast", "whole"), help="only this tier (deploy/test.sh)")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tier that is asked for; files with slow tests first, so that no worker ends alone with one."""
    tier = config.getoption("--tier")
    if tier:
        of = {
            item: "whole"
            if item.nodeid.startswith(WHOLE) or item.get_closest_marker("slow")
            else "fast"
            for item in items
        }
        config.hook.pytest_deselected(items=[item for item in items if of[item] != tier])
        items[:] = [item for item in items if of[item] == tier]
    if DEEP:
        for item in items:
            mark = item.get_closest_marker("timeout")
            seconds = mark.args[0] if mark else SECONDS_MAX
            item.add_marker(pytest.mark.timeout(seconds * DEEP_PATIENCE), append=False)
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)  # stable: the rest keeps its order


@pytest.fixture(autouse=True, scope="module")
def ended_processes() -> Iterator[None]:
    """What a failed test has left running disturbs none of another module."""
    yield
    processes.end_all()


def leave_out(reason: str) -> None:
    """Leave the running test out, or fail it where nothing may be left out."""
    if CI:
        pytest.fail(f"left out in CI: {reason}", pytrace=False)
    pytest.skip(LEFT_OUT + reason)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note each test that was left out: deploy/test.sh tells them at its end."""
    listed = os.environ.get("TOCSIN_LEFT_OUT")
    if not listed or "PYTEST_XDIST_WORKER" in os.environ or not isinstance(report.longrepr, tuple):
        return
    _, found, reason = str(report.longrepr[2]).partition(LEFT_OUT)
    if found:
        with Path(listed).open("a", encoding="utf-8") as file:
            file.write(reason + "\n")


@pytest.fixture(scope="session")
def shared() -> Path:
    """Our folder of captures and data sets, beside a developer's checkout; not part of the project."""
    folder = Path(__file__).parents[2] / "shared"
    if not folder.is_dir():
        leave_out(f"{folder.name}/ with captures and data sets is not beside this checkout")
    return folder


@pytest.fixture
def needs() -> Callable[..., None]:
    """Return a function that leaves the test out unless these programs are here (and root, if asked)."""

    def check(*programs: str, root: bool = False) -> None:
        if root and os.geteuid() != 0:
            leave_out("needs root (network namespaces)")
        missing = [name for name in programs if shutil.which(name) is None]
        if missing:
            leave_out(f"needs {', '.join(missing)}: run deploy/test.sh as root, it installs them")

    return check


@pytest.fixture(scope="session")
def deep() -> bool:
    """Whether the long forms are wanted (`make test-deep`)."""
    return DEEP
