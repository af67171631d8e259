"""Routers in network namespaces: FRR's daemons, ExaBGP, and an SSH server, each with its own folder."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.support import processes

FRR = Path("/usr/lib/frr")


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@contextlib.contextmanager
def two_namespaces() -> Iterator[tuple[str, str]]:
    """Two namespaces with a wire between them: 10.99.0.1/30 and 10.99.0.2/30."""
    names = (f"tsa{os.getpid()}", f"tsb{os.getpid()}")
    made: list[str] = []
    try:
        for name in names:
            ip("netns", "add", name)
            made.append(name)
        ip(
            "-n",
            names[0],
            "link",
            "add",
            "wire",
            "type",
            "veth",
            "peer",
            "name",
            "wire",
            "netns",
            names[1],
        )
        for number, name in enumerate(names, 1):
            ip("-n", name, "addr", "add", f"10.99.0.{number}/30", "dev", "wire")
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "set", "wire", "up")
        yield names
    finally:
        for name in made:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def until(done: Callable[[], Any], *, seconds: float = 30.0) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := done():
            return found
        time.sleep(0.1)
    raise AssertionError("it did not come about in time")


class Frr:
    """zebra, staticd and bgpd in one namespace. `folder` must be one that the user frr can enter."""

    def __init__(self, namespace: str, folder: Path, bgp: str) -> None:
        self.namespace, self.folder = namespace, folder
        folder.mkdir()
        for daemon in ("zebra", "staticd", "bgpd"):
            (folder / f"{daemon}.conf").write_text(bgp if daemon == "bgpd" else "")
        for path in (folder, *folder.iterdir()):
            shutil.chown(path, "frr", "frr")
        for daemon in ("zebra", "staticd", "bgpd"):
            subprocess.run(
                ["ip", "netns", "exec", namespace, str(FRR / daemon), "-d", "-f", f"{folder}/{daemon}.conf",
                 "--vty_socket", str(folder), "-i", f"{folder}/{daemon}.pid", "-z", f"{folder}/zserv.api",
                 "--log", f"file:{folder}/{daemon}.log", "-A", "127.0.0.1"],
                check=True, capture_output=True,
            )  # fmt: skip

    def vtysh(self, *commands: str) -> str:
        words = [*self.words, *(word for command in commands for word in ("-c", command))]
        return subprocess.run(words, capture_output=True, text=True, check=False).stdout

    @property
    def words(self) -> tuple[str, ...]:
        """How vtysh of this router is started: what an action's `run` begins with."""
        return ("ip", "netns", "exec", self.namespace, "vtysh", "--vty_socket", str(self.folder))

    def stop(self) -> None:
        for path in self.folder.glob("*.pid"):
            with contextlib.suppress(OSError, ValueError):
                os.kill(int(path.read_text()), 15)


class ExaBgp:
    """ExaBGP in one namespace; what is written to `pipe` it takes as commands."""

    def __init__(self, namespace: str, folder: Path, neighbor: str) -> None:
        folder.mkdir()
        self.pipe = folder / "commands"
        os.mkfifo(self.pipe, 0o666)
        feed = folder / "feed.sh"
        feed.write_text(f"#!/bin/sh\nexec cat 0<>{self.pipe}\n")
        feed.chmod(0o755)
        (folder / "exabgp.conf").write_text(
            f"process feed {{\n    run {feed};\n    encoder text;\n}}\n"
            + neighbor.replace("}\n}", "}\n    api { processes [ feed ]; }\n}")
        )
        environment = {
            **os.environ, "exabgp.daemon.user": "root", "exabgp.api.ack": "false",
            "exabgp.api.cli": "false", "exabgp.api.version": "4",
        }  # fmt: skip
        with (folder / "log").open("ab") as log:
            self._process = processes.start(
                ["ip", "netns", "exec", namespace, str(Path(sys.executable).parent / "exabgp"), "server",
                 str(folder / "exabgp.conf")],
                stdout=log, stderr=log, env=environment, cwd=folder,
            )  # fmt: skip

    def stop(self) -> None:
        processes.stop(self._process, seconds=10.0)


class SshServer:
    """OpenSSH's server in one namespace, with a host key and one login key of its own."""

    def __init__(self, namespace: str, address: str, folder: Path) -> None:
        folder.mkdir(mode=0o700)
        self.key, self.known = folder / "login", folder / "known_hosts"
        for name in ("host", "login"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)],
                check=True,
            )
        shutil.copy(folder / "login.pub", folder / "authorized")
        self.known.write_text(f"{address} {(folder / 'host.pub').read_text()}")
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        config = folder / "sshd_config"
        config.write_text(
            f"ListenAddress {address}:22\nHostKey {folder}/host\nPidFile {folder}/pid\n"
            f"AuthorizedKeysFile {folder}/authorized\nStrictModes no\nUsePAM no\n"
            "PasswordAuthentication no\nPermitRootLogin prohibit-password\n"
        )
        with (folder / "log").open("ab") as log:
            self._process = processes.start(
                ["ip", "netns", "exec", namespace, "/usr/sbin/sshd", "-D", "-e", "-f", str(config)],
                stdout=log, stderr=log,
            )  # fmt: skip

    def stop(self) -> None:
        processes.stop(self._process, seconds=10.0)
