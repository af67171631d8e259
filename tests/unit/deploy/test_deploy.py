"""What is shipped for operations loads, verifies, and notifies."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.notify import notify
from tocsin.config import load_config

ROOT = Path(__file__).parents[3]


# Mappings are no configurations: tests of the adapter load each.
CONFIGURATIONS = sorted(
    path for path in (ROOT / "deploy").rglob("*.toml") if path.parent.name != "mappings"
)


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda p: p.name)
def test_every_configuration_loads(path: Path) -> None:
    if path.name == "network.toml":
        from correlator.tables.network_map import load_network

        assert len(load_network(path).routers()) == 30
        return
    assert load_config(path).collectors


@pytest.mark.parametrize("name", ["site", "core"])
def test_sites_hear_every_stream_of_routers_at_ports_that_need_no_privilege(name: str) -> None:
    from collectors.listen.udp import parse_address

    collectors = load_config(ROOT / "deploy" / "config" / f"{name}.toml").collectors
    heard = {(one.kind, one.listen.partition("://")[0]) for one in collectors.values()}
    assert heard >= {
        ("flow", "udp"), ("sflow", "udp"), ("syslog", "udp"), ("syslog", "tcp"),
        ("snmp-trap", "udp"), ("bmp", "tcp"),
    }  # fmt: skip
    assert all(parse_address(one.listen)[1] > 1024 for one in collectors.values())


UNITS = ["tocsin.service", "tocsin-watchdog.service"]


def installed() -> str:
    """Return where docs/install.md puts the program."""
    text = (ROOT / "docs" / "install.md").read_text("utf-8")
    folder = re.search(r"^git clone \S+ (\S+) && cd \1 && make setup", text, re.MULTILINE)
    program = re.search(r"^(\S+/tocsin) config check", text, re.MULTILINE)
    assert folder is not None
    assert program is not None
    return f"{folder[1]}/{program[1]}"


@pytest.mark.parametrize("unit", UNITS)
def test_units_start_what_the_installation_made_with_what_it_made(unit: str) -> None:
    text = (ROOT / "deploy" / "systemd" / unit).read_text("utf-8")
    document = (ROOT / "docs" / "install.md").read_text("utf-8")
    (command,) = re.findall(r"^ExecStart=(.+)$", text, re.MULTILINE)
    program, *words = command.split()
    assert program == installed()
    made = re.search(r"^PY := (\S+)/python$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert made is not None
    assert program.endswith(f"/{made[1]}/tocsin")
    named = [word for word in words if word.startswith("/")]
    named += re.findall(r"^Environment=TOCSIN_STATE_DIR=(.+)$", text, re.MULTILINE)
    assert named
    assert [path for path in named if path not in document] == []
    (state,) = re.findall(r"^StateDirectory=(.+)$", text, re.MULTILINE)
    (user,) = re.findall(r"^User=(.+)$", text, re.MULTILINE)
    assert f"useradd --system --home-dir /var/lib/{state} {user}\n" in document
    assert f"deploy/systemd/{unit}" in document


@pytest.mark.parametrize("unit", UNITS)
def test_units_verify(unit: str, tmp_path: Path, needs: Callable[..., None]) -> None:
    if os.environ.get("TIER") == "fast":
        pytest.skip("TIER=fast uses the environment alone")
    needs("systemd-analyze")
    text = (ROOT / "deploy" / "systemd" / unit).read_text("utf-8")
    # The program is not installed here: verify the unit with one that is.
    copy = tmp_path / unit
    copy.write_text(text.replace(installed(), sys.executable), "utf-8")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)],
        capture_output=True,
        text=True,
        check=False,
    )
    complaints = [line for line in done.stderr.splitlines() if unit in line]
    assert complaints == []


def test_the_service_says_ready_and_watchdog(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        assert notify("READY=1")
        assert notify("WATCHDOG=1")
        assert [listener.recv(100), listener.recv(100)] == [b"READY=1", b"WATCHDOG=1"]


def test_nobody_listening_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "absent"))
    assert not notify("READY=1")
