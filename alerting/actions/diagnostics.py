"""Fetch a diagnostics bundle over SSH when an alarm is raised: what the routers say at that moment.

`options.commands` are run one by one on the alarm's nodes, both ends where it is about a link
(`options.hosts` leads from a node's name to an address), with OpenSSH's client, key and known hosts of one's
own and nobody asked for a password. The answers go into one zip under the folder `path`, named by the change, so
that a repeat finds it there. A command that fails or takes too long leaves what it said, and the others are asked.
"""

import json
import zipfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from alerting.actions.command import EndedError, TooLongError, run
from alerting.config import SinkSettings
from alerting.sinks.parcel import Parcel, RefusedError
from alerting.words.alert import Alert, canonical
from alerting.words.escape import token
from alerting.words.wording import is_over, place
from runtime.registry import Part
from runtime.settings import Port, PositiveInt, Settings
from telemetry.errors import TransientError

NO_CONNECTION = 255  # ssh's own; all else is the command's
OUTPUT_BYTES_MAX = 4 * 1024 * 1024  # of one command
ZIP_BEGINS = (1980, 1, 1, 0, 0, 0)
NODES_MAX = 4  # that are asked for one alarm


class DiagnosticsOptions(Settings, frozen=True, kw_only=True):
    """How routers are reached and what they are asked."""

    commands: tuple[str, ...]  # what a router is asked, one after the other
    login: str  # user name there
    key_file: str  # the private key
    known_hosts: str  # file of the routers' host keys; others are not trusted
    # node: address; where an alarm names none that is here, its node is reached by its name
    hosts: dict[str, str] = {}
    port: Port = 22  # of SSH
    bundles_max: PositiveInt = 200  # the oldest go


class DiagnosticsAction:
    """Owns the folder of bundles."""

    batch_max = 1
    repeat_seconds = 0.0

    def __init__(self, settings: SinkSettings, options: DiagnosticsOptions) -> None:
        self._settings = settings
        self._options = options

    def send(self, parcels: Sequence[Parcel], *, now_ns: int) -> str:
        """Fetch the bundle of a raise."""
        (parcel,) = parcels
        alert = parcel.alert
        if is_over(alert) or alert.state != "raised":
            return "nothing to fetch"
        folder = Path(self._settings.path)
        path = folder / f"{alert.change}.zip"
        if path.exists():
            return f"is there: {path.name}"
        hosts = self._hosts(alert)
        answers: dict[str, str] = {}
        failed: list[str] = []
        for node, host in hosts.items():
            self._ask_all(node, host, answers, failed)
        if not answers:
            raise TransientError("; ".join(failed))
        count = len(answers)
        answers["alert.json"] = canonical(alert).decode()
        answers["manifest.json"] = json.dumps(
            {"hosts": hosts, "commands": list(self._options.commands), "failed": failed}
        )
        self._write(folder, path, answers, now_ns)
        said = f"{path.name}: {count} answer{'s' if count != 1 else ''} of {', '.join(hosts)}"
        return said + (f"; failed: {'; '.join(failed)}" if failed else "")

    def _hosts(self, alert: Alert) -> dict[str, str]:
        """Return the nodes that an alarm is about, each with the host to ask."""
        told: Mapping[str, Any] = alert.explain
        here = [str(told.get("node") or ""), place(alert.entity)[0]]
        touched = [place(str(name))[0] for name in told.get("touches") or ()]
        known = self._options.hosts
        nodes = [node for node in dict.fromkeys((*here, *touched)) if node in known]
        nodes = nodes[:NODES_MAX] or [here[0] or here[1]]
        try:
            return {node: token(known.get(node, node)) for node in nodes}
        except ValueError as error:
            raise RefusedError(f"no host to ask: {error}") from error

    def _ask_all(self, node: str, host: str, answers: dict[str, str], failed: list[str]) -> None:
        """Add the answers of one node, and what failed there; one that cannot be reached has none."""
        for number, command in enumerate(self._options.commands, 1):
            try:
                said = self._ask(host, command)
            except EndedError as error:
                if error.code == NO_CONNECTION:
                    failed.append(f"{node}: {error}")
                    return
                failed.append(f"{node}: {command}: {error}")
                continue
            except TooLongError as error:
                failed.append(f"{node}: {command}: {error}")
                said = error.output
                if not said:
                    continue
            except TransientError as error:
                failed.append(f"{node}: {error}")
                return
            name = f"{node.replace('/', '_')}-{number:02d}.txt"
            answers[name] = f"$ {command}\n\n{said}\n"

    def _ask(self, host: str, command: str) -> str:
        options = self._options
        seconds = self._settings.timeout_seconds
        words = [
            "ssh", "-T", "-F", "none", "-p", str(options.port), "-i", options.key_file,
            "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none",
            "-o", "StrictHostKeyChecking=yes", "-o", f"UserKnownHostsFile={options.known_hosts}",
            "-o", "GlobalKnownHostsFile=none", "-o", "UpdateHostKeys=no",
            "-o", f"ConnectTimeout={max(1, round(seconds) - 1)}",
            "-l", options.login, host, "--", command,
        ]  # fmt: skip
        return run(words, seconds=seconds, output_bytes_max=OUTPUT_BYTES_MAX)

    def _write(self, folder: Path, path: Path, answers: dict[str, str], now_ns: int) -> None:
        beside = path.with_suffix(".new")
        at = max(datetime.fromtimestamp(now_ns // 10**9, UTC).timetuple()[:6], ZIP_BEGINS)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with zipfile.ZipFile(beside, "w") as file:
                for name, text in answers.items():
                    file.writestr(zipfile.ZipInfo(name, at), text, zipfile.ZIP_DEFLATED)
            beside.replace(path)
            kept = sorted(folder.glob("*.zip"), key=lambda p: p.stat().st_mtime_ns)
            for old in kept[: max(len(kept) - self._options.bundles_max, 0)]:
                old.unlink(missing_ok=True)
        except OSError as error:
            raise TransientError(f"{path}: {error.strerror}") from error

    def repeat(self, active: Sequence[Alert], *, now_ns: int) -> None:
        """A bundle is of its moment."""

    def close(self) -> None:
        """Nothing is held open."""


def _make(settings: SinkSettings, options: DiagnosticsOptions) -> DiagnosticsAction:
    return DiagnosticsAction(settings, options)


SINK = Part("a diagnostics bundle over SSH", _make, DiagnosticsOptions, needs=("path",))
