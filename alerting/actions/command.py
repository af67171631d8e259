"""Run a program when an alarm is raised and its counterpart when it is over: routes, filters, scripts.

`options.run` and `options.undo` are argument lists; there is no shell. What a hole `${...}` puts into an
argument must be one plain word, addresses must lie in `options.allowed`, and never are more than
`in_force_max` in force. What was done is written to `path` before it is done: the end of the alarm
undoes exactly that, also after a restart, whatever the alarm says by then. Doing twice must be harmless,
as it is for routes.
"""

import contextlib
import ipaddress
import json
import os
import shlex
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alerting.config import SinkSettings
from alerting.sinks.parcel import Parcel, RefusedError
from alerting.words.alert import Alert
from alerting.words.escape import line
from alerting.words.templating import NAMES, check, fields, fill
from alerting.words.wording import is_over
from runtime.registry import Part
from runtime.settings import PositiveInt, Settings
from telemetry.errors import ConfigError, TransientError

OUTPUT_CHARACTERS = 300
# Of the busiest talker: what a filter is made of. `host` is whom an attack aims at.
TALKER = {"host": "destination", "attacker": "source", "protocol": "protocol",
          "source_port": "source_port", "destination_port": "destination_port"}  # fmt: skip
ADDRESSES = ("host", "attacker")


class EndedError(TransientError):
    """A program ended with a code that is not 0."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


class CommandOptions(Settings, frozen=True, kw_only=True):
    """What is run; `${host}`, `${attacker}`, `${protocol}`, `${source_port}`, `${destination_port}`
    name the busiest talker, beside all fields that templates have."""

    run: tuple[str, ...]  # the program and its arguments; no shell
    undo: tuple[str, ...] = ()  # empty: what is done stays
    dry_run: bool = False  # say what would be run, and run nothing
    # Prefixes that addresses must lie in; empty = no address may be used.
    allowed: tuple[str, ...] = ()
    in_force_max: PositiveInt = 20  # more are not run, and said


class CommandAction:
    """Owns the record at `path` of what is in force."""

    batch_max = 1
    repeat_seconds = 0.0

    def __init__(self, settings: SinkSettings, options: CommandOptions) -> None:
        self._settings = settings
        self._options = options
        if not options.run:
            raise ConfigError("options.run is empty: name a program and its arguments")
        for text in (*options.run, *options.undo):
            check(text, (*NAMES, *TALKER))
        try:
            self._allowed = [ipaddress.ip_network(one) for one in options.allowed]
        except ValueError as error:
            raise ConfigError(f"options.allowed: {error}") from error

    def send(self, parcels: Sequence[Parcel], *, now_ns: int) -> str:
        """Do on a raise, undo at the end; a change in between changes nothing."""
        (parcel,) = parcels
        alert = parcel.alert
        record = self._record()
        if is_over(alert):
            done = record.get(alert.id)
            if done is None:
                return "nothing is in force"
            said = self._run(done["undo"]) if done["undo"] else "it stays: options.undo is empty"
            del record[alert.id]
            self._keep(record)
            return said
        if alert.id not in record:
            if len(record) >= self._options.in_force_max:
                raise RefusedError(
                    f"{len(record)} are in force, in_force_max allows no more; see {self._settings.path}"
                )
            values = self._values(alert)
            record[alert.id] = {
                "run": [self._word(text, values) for text in self._options.run],
                "undo": [self._word(text, values) for text in self._options.undo],
                "entity": alert.entity, "since_ns": now_ns,
            }  # fmt: skip
            self._keep(record)
        return self._run(record[alert.id]["run"])

    def _values(self, alert: Alert) -> dict[str, str]:
        talkers = alert.explain.get("top_talkers") or [{}]
        first: Mapping[str, Any] = talkers[0] if isinstance(talkers[0], dict) else {}
        return fields(alert) | {name: str(first.get(key, "")) for name, key in TALKER.items()}

    def _word(self, text: str, values: Mapping[str, str]) -> str:
        for name in ADDRESSES:
            if f"${{{name}}}" in text:
                self._must_lie_in(values[name])
        try:
            return fill(text, values, "token")
        except ValueError as error:
            raise RefusedError(f"{text!r} is not run: {error}") from error

    def _must_lie_in(self, text: str) -> None:
        try:
            address = ipaddress.ip_address(text)
        except ValueError as error:
            raise RefusedError(
                f"the alarm names no address to act on: {line(text, 60)!r}"
            ) from error
        if not any(address in prefix for prefix in self._allowed):
            raise RefusedError(f"{address} lies in none of options.allowed: nothing is run")

    def _run(self, words: Sequence[str]) -> str:
        shown = shlex.join(words)
        if self._options.dry_run:
            return f"dry run, would run: {shown}"
        return (
            run(words, seconds=self._settings.timeout_seconds)[:OUTPUT_CHARACTERS]
            or f"done: {shown}"
        )

    def _record(self) -> dict[str, dict[str, Any]]:
        try:
            made: dict[str, dict[str, Any]] = json.loads(
                Path(self._settings.path).read_text("utf-8")
            )
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise TransientError(
                f"{self._settings.path}: {error}; nothing is done without it"
            ) from error
        return made

    def _keep(self, record: Mapping[str, Any]) -> None:
        path = Path(self._settings.path)
        beside = path.with_name(path.name + ".new")
        try:
            with beside.open("w", encoding="utf-8") as file:
                json.dump(record, file, indent=1, sort_keys=True)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        except OSError as error:
            raise TransientError(f"{path}: {error.strerror}; nothing is done without it") from error

    def repeat(self, active: Sequence[Alert], *, now_ns: int) -> None:
        """What is in force stays in force."""

    def close(self) -> None:
        """Nothing is held open; what is in force stays."""


def run(words: Sequence[str], *, seconds: float, output_bytes_max: int = 1 << 20) -> str:
    """Run a program without a shell and return its output; it and its children end with the time."""
    try:
        process = subprocess.Popen(
            list(words), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise TransientError(f"{words[0]}: {error.strerror}") from error
    with process:
        try:
            output, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired as error:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise TransientError(
                f"{words[0]} did not end within {seconds:g} s, and was ended"
            ) from error
    text = output[:output_bytes_max].decode(errors="replace").strip()
    if process.returncode:
        said = line(text, OUTPUT_CHARACTERS) or "it said nothing"
        raise EndedError(f"{words[0]} ended with {process.returncode}: {said}", process.returncode)
    return text


def _make(settings: SinkSettings, options: CommandOptions) -> CommandAction:
    return CommandAction(settings, options)


SINK = Part("a program, and its counterpart at the end", _make, CommandOptions, needs=("path",))
