"""docs/install.md: what lies in the state folder, and what of it a copy needs."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# As the code names them: `state / "journal"`, `f"ipc://{self._state}/node.sock"`, `FolderLock(state, "run", ...)`.
NAMED = (
    re.compile(r"\b_?state / f?\"([\w.]+)"),
    re.compile(r"\{(?:self\.)?_?(?:state|folder)\}/([\w.]+)"),
    re.compile(r"^(?:ADDRESS_)?FILE(?:_NAME)? = \"([\w.]+)\"", re.MULTILINE),
    re.compile(r"\bfolder / \"(kernels)\""),
)
ELSEWHERE = ("demo", "cases", "stories", "testing")  # write under folders of their own


def documented() -> dict[str, str]:
    """By path: whether a copy needs it."""
    text = (ROOT / "docs" / "install.md").read_text("utf-8").partition("## Keep and upgrade")[2]
    rows = re.findall(r"^\| (`[^|]+`) \|[^|]+\| (yes|no) \|$", text, re.MULTILINE)
    return {name: copy for names, copy in rows for name in re.findall(r"`([^`]+)`", names)}


def named() -> set[str]:
    """What the code writes or reads under the state folder; sockets and locks by their suffix."""
    found = set()
    for path in sorted((ROOT / "tocsin").rglob("*.py")):
        if path.parent.name in ELSEWHERE:
            continue
        text = path.read_text("utf-8")
        for pattern in NAMED:
            found |= set(pattern.findall(text))
    return {
        f"*{Path(name).suffix}" if name.endswith((".sock", ".lock")) else name for name in found
    }


def test_what_the_code_keeps_under_the_state_folder_is_listed_and_nothing_else() -> None:
    listed = {name.rstrip("/") for name in documented()}
    ours = {name.removesuffix(".new") for name in named()} | {"*.lock"}
    assert sorted(ours - listed) == []
    assert sorted(listed - ours) == []


@pytest.mark.parametrize(
    "name",
    [
        "journal/",
        "checkpoints/",
        "node.sqlite",
        "templates/",
        "cursors/",
        "sources/",
        "flows/",
        "history/",
    ],
)
def test_what_cannot_be_made_anew_is_copied(name: str) -> None:
    assert documented()[name] == "yes"
