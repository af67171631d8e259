"""Parts by kind: ours without looking for plug-ins, plug-ins where one is installed."""

import sys
from pathlib import Path

import pytest

from runtime.registry import Part, Registry, installed_with
from telemetry.errors import ConfigError

OURS = {"ours": "tests.unit.runtime.test_registry:PART"}
PART: Part[object] = Part("one of ours", object)


@pytest.fixture
def plug_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package that is installed, with parts of the group that is given out."""
    folder = tmp_path / "strangers-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: strangers\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(
        "[tocsin.test_parts]\n"
        "theirs = tests.unit.runtime.test_registry:PART\n"
        "broken = tests.unit.runtime.no_such_module:PART\n"
        "other = tests.unit.runtime.test_registry:OURS\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return "tocsin.test_parts"


def test_parts_of_plug_ins_stand_behind_ours(plug_in: str) -> None:
    registry: Registry[object] = Registry(plug_in, OURS)
    assert registry.kinds() == ["ours", "broken", "other", "theirs"]
    assert registry.get("theirs") is PART
    assert registry.knows("theirs")
    with pytest.raises(
        ConfigError, match=r"plug-in tests\.unit\.runtime\.no_such_module:PART does not load"
    ):
        registry.get("broken")
    with pytest.raises(ConfigError, match=r"is no runtime\.registry\.Part"):
        registry.get("other")


def test_without_plug_ins_there_are_ours() -> None:
    registry: Registry[object] = Registry("tocsin.nobody_has_this", OURS)
    assert registry.kinds() == ["ours"]
    assert registry.knows("ours")
    assert not registry.knows("theirs")
    assert registry.get("ours") is PART
    with pytest.raises(ConfigError, match="kind 'our' is not known; did you mean 'ours'"):
        registry.get("our")


def test_where_packages_cannot_be_looked_at_there_may_be_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert not installed_with("tocsin.sinks")
    (tmp_path / "packages.zip").touch()
    monkeypatch.setattr(sys, "path", [str(tmp_path / "packages.zip")])
    assert installed_with("tocsin.sinks")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    (tmp_path / "odd.egg-info" / "entry_points.txt").mkdir(parents=True)  # a folder: not to be read
    assert installed_with("tocsin.sinks")
