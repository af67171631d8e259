"""Fetch a diagnostics bundle over SSH when an alarm is raised: what the router says at that moment.

`options.commands` are run one by one on the alarm's node (`options.hosts` leads from its name to an
address), with OpenSSH's client, key and known hosts of one's own and nobody asked for a password. The
answers go into one zip under the folder `path`, named by the change, so that a repeat finds it there.
"""

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

from alerting.actions.command import EndedError, run
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


class DiagnosticsOptions(Settings, frozen=True, kw_only=True):
    """How routers are reached and what they are asked."""

    commands: tuple[str, ...]  # what a router is asked, one after the other
    login: str  # user name there
    key_file: str  # the private key
    known_hosts: str  # file of the routers' host keys; others are not trusted
    hosts: dict[str, str] = {}  # node: address; a node that is not here is reached by its name
    port: Port = 22  # of SSH
    bundles_max: PositiveInt = 200  # the oldest go


class DiagnosticsAction:
    """Owns the folder of bundles."""

    batch_max = 1
    repeat_seconds = 0.0

    def __init__(self, settings: SinkSettings, options: DiagnosticsOptions) -> None:
        self._settings = settings
        self._options = options

    def send(self, parcels: Sequence[Parcel], *, now_ns: int) -> str:  # noqa: ARG002
        """Fetch the bundle of a raise."""
        (parcel,) = parcels
        alert = parcel.alert
        if is_over(alert) or alert.state != "raised":
            return "nothing to fetch"
        folder = Path(self._settings.path)
        path = folder / f"{alert.change}.zip"
        if path.exists():
            return f"is there: {path.name}"
        node, _ = place(alert.entity)
        try:
            host = token(self._options.hosts.get(node, node))
        except ValueError as error:
            raise RefusedError(f"no host to ask: {error}") from error
        answers, failed = {}, []
        for number, command in enumerate(self._options.commands, 1):
            try:
                answers[f"{number:02d}.txt"] = f"$ {command}\n\n{self._ask(host, command)}\n"
            except EndedError as error:
                if error.code == NO_CONNECTION:
                    raise
                failed.append(f"{command}: {error}")
        answers["alert.json"] = canonical(alert).decode()
        answers["manifest.json"] = json.dumps(
            {"host": host, "commands": list(self._options.commands), "failed": failed}
        )
        self._write(folder, path, answers)
        return f"{path.name}: {len(answers) - 2} answers" + (
            f", failed: {failed}" if failed else ""
        )

    def _ask(self, host: str, command: str) -> str:
        options = self._options
        seconds = self._settings.timeout_seconds
        words = [
            "ssh", "-T", "-F", "none", "-p", str(options.port), "-i", options.key_file,
            "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=yes",
            "-o", f"UserKnownHostsFile={options.known_hosts}", "-o", f"ConnectTimeout={max(1, round(seconds))}",
            "-l", options.login, host, "--", command,
        ]  # fmt: skip
        return run(words, seconds=seconds, output_bytes_max=OUTPUT_BYTES_MAX)

    def _write(self, folder: Path, path: Path, answers: dict[str, str]) -> None:
        beside = path.with_suffix(".new")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with zipfile.ZipFile(beside, "w", zipfile.ZIP_DEFLATED) as file:
                for name, text in answers.items():
                    file.writestr(zipfile.ZipInfo(name), text)
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
