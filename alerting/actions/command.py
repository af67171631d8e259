"""Run a program when an alarm is raised and its counterpart when it is over: routes, filters, scripts.

`options.run` and `options.undo` are argument lists; there is no shell. What a hole `${...}` puts into an
argument must be one plain word; an address or prefix must lie in `options.allowed`, touch none of
`options.protected` and be one host. Never are more than `in_force_max` in force. What is about to be done is
written to `path` first: the end of the alarm undoes exactly that, also after a restart, whatever the alarm says
by then. It is done again only where it is not known whether it was: that must be harmless, as it is for routes.
What another alarm has in force too stays until that one is over.
"""

import contextlib
import ipaddress
import json
import os
import re
import shlex
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

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
MAPPED = ipaddress.ip_network("::ffff:0:0/96")
# A field, and a prefix length behind it.
HOLE = re.compile(r"\$\{([a-z_][a-z0-9_.]*)[^}]*\}(/\d+)?")
# How far an action is: noted, perhaps done; done; being undone, perhaps; only said.
BEGUN, DONE, ENDING, DRY = "begun", "done", "ending", "dry"
LAST_WORDS_SECONDS = 0.5  # after a program's end: what it left behind may hold its output open
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class EndedError(TransientError):
    """A program ended with a code that is not 0."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


class TooLongError(TransientError):
    """A program did not end in its time; `output` is what it had said."""

    def __init__(self, text: str, output: str) -> None:
        super().__init__(text)
        self.output = output


class CommandOptions(Settings, frozen=True, kw_only=True):
    """What is run; `${host}`, `${attacker}`, `${protocol}`, `${source_port}`, `${destination_port}`
    name the busiest talker, beside all fields that templates have."""

    # The program and its arguments; no shell. They stand in the audit: a secret belongs in a file it reads.
    run: tuple[str, ...]
    undo: tuple[str, ...] = ()  # empty: what is done stays
    # Say what would be run, and run nothing; what is in force already is undone at its end all the same.
    dry_run: bool = False
    # Prefixes that addresses must lie in; empty = no address may be used.
    allowed: tuple[str, ...] = ()
    # Prefixes within those that are never acted on: your own servers.
    protected: tuple[str, ...] = ()
    prefixes: bool = False  # act on whole prefixes too, not on single hosts alone
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
        self._allowed = _networks("allowed", options.allowed)
        self._protected = _networks("protected", options.protected)

    def send(self, parcels: Sequence[Parcel], *, now_ns: int) -> str:
        """Do on a raise, undo at the end; a change in between changes nothing."""
        (parcel,) = parcels
        alert = parcel.alert
        # Without its realm: one that was given meanwhile leaves nothing in force.
        number = alert.id.removeprefix(self._settings.realm)
        record = self._record()
        known = record.get(number)
        if is_over(alert):
            return self._end(number, record) if known else "nothing is in force"
        if known and known["state"] == ENDING:  # the end before this raise did not come about
            self._end(number, record)
            known = None
        if known is None or (known["state"] == DRY and not self._options.dry_run):
            known = record[number] = self._begun(alert, record, now_ns)
            self._keep(record)
        shown = shlex.join(known["run"])
        if known["state"] == DONE:
            return f"is in force: {shown}"
        if self._options.dry_run:
            return f"dry run, would run: {shown}"
        said = self._run(known["run"])
        known["state"] = DONE
        self._keep(record)
        return said

    def _begun(self, alert: Alert, record: Mapping[str, Any], now_ns: int) -> dict[str, Any]:
        dry = self._options.dry_run
        in_force = sum(one["state"] != DRY for one in record.values())
        if in_force >= self._options.in_force_max and not dry:
            raise RefusedError(
                f"{in_force} are in force, in_force_max allows no more; see {self._settings.path}"
            )
        values = self._values(alert)
        return {
            "run": [self._word(text, values) for text in self._options.run],
            "undo": [self._word(text, values) for text in self._options.undo],
            "entity": alert.entity, "since_ns": now_ns, "state": DRY if dry else BEGUN,
        }  # fmt: skip

    def _end(self, alarm: str, record: dict[str, dict[str, Any]]) -> str:
        done = record[alarm]
        others = [
            name
            for name, one in record.items()
            if name != alarm and one["run"] == done["run"] and one["state"] not in (DRY, ENDING)
        ]
        if done["state"] == DRY:
            said = f"dry run, would run: {shlex.join(done['undo'])}"
        elif others:
            said = f"it stays: in force for alarm {others[0]} too"
        elif not done["undo"]:
            said = "it stays: options.undo is empty"
        else:
            done["state"] = ENDING
            self._keep(record)
            said = self._run(done["undo"])
        del record[alarm]
        self._keep(record)
        return said

    def _values(self, alert: Alert) -> dict[str, str]:
        talkers = alert.explain.get("top_talkers") or [{}]
        first: Mapping[str, Any] = talkers[0] if isinstance(talkers[0], dict) else {}
        return fields(alert) | {name: str(first.get(key, "")) for name, key in TALKER.items()}

    def _word(self, text: str, values: Mapping[str, str]) -> str:
        for name, length in HOLE.findall(text):
            self._must_be_let(name, values[name], length)
        try:
            return fill(text, values, "token")
        except ValueError as error:
            raise RefusedError(f"{text!r} is not run: {error}") from error

    def _must_be_let(self, name: str, text: str, length: str) -> None:
        """Raise RefusedError where a field is an address or prefix that nothing may be done to."""
        try:
            if name in ADDRESSES:
                ipaddress.ip_address(text)
            network = ipaddress.ip_network(text + length, strict=False)
        except ValueError as error:
            if name in ADDRESSES:
                shown = line(text + length, 60)
                raise RefusedError(f"the alarm names no address to act on: {shown!r}") from error
            return
        if network.version == 6 and network.overlaps(MAPPED):
            raise RefusedError(f"{network} is IPv4 written as IPv6: nothing is run")
        if network.num_addresses > 1 and not self._options.prefixes:
            raise RefusedError(f"{network} is more than one host: nothing is run")
        if not any(_lies_in(network, one) for one in self._allowed):
            raise RefusedError(f"{network} lies in none of options.allowed: nothing is run")
        for one in self._protected:
            if network.version == one.version and network.overlaps(one):
                raise RefusedError(f"{network} touches {one} of options.protected: nothing is run")

    def _run(self, words: Sequence[str]) -> str:
        said = line(run(words, seconds=self._settings.timeout_seconds), OUTPUT_CHARACTERS)
        return f"done: {shlex.join(words)}" + (f": {said}" if said else "")

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
        # A record of before states were kept: whatever it names may have been done.
        return {alarm: {"state": BEGUN, **one} for alarm, one in made.items()}

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


def _networks(name: str, prefixes: Sequence[str]) -> list[Network]:
    try:
        return [ipaddress.ip_network(one) for one in prefixes]
    except ValueError as error:
        raise ConfigError(f"options.{name}: {error}") from error


def _lies_in(network: Network, other: Network) -> bool:
    return network.version == other.version and network.subnet_of(other)  # type: ignore[arg-type]


def run(words: Sequence[str], *, seconds: float, output_bytes_max: int = 1 << 20) -> str:
    """Run a program without a shell and return the first of its output; it and its children end with the time.

    Raises EndedError where it fails, TooLongError where it takes longer.
    """
    try:
        process = subprocess.Popen(
            list(words), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise TransientError(f"{words[0]}: {error.strerror}") from error
    assert process.stdout is not None
    kept = bytearray()
    reader = threading.Thread(
        target=_read, args=(process.stdout, kept, output_bytes_max), daemon=True
    )
    reader.start()
    too_long = False
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        too_long = True
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    reader.join(LAST_WORDS_SECONDS)
    text = bytes(kept).decode(errors="replace").strip()
    if too_long:
        raise TooLongError(f"{words[0]} did not end within {seconds:g} s, and was ended", text)
    if process.returncode:
        said = line(text, OUTPUT_CHARACTERS) or "it said nothing"
        raise EndedError(f"{words[0]} ended with {process.returncode}: {said}", process.returncode)
    return text


def _read(pipe: IO[bytes], kept: bytearray, most: int) -> None:
    """Take all that comes, keep the first of it."""
    with pipe:
        while chunk := os.read(pipe.fileno(), 65_536):
            kept += chunk[: max(most - len(kept), 0)]


def _make(settings: SinkSettings, options: CommandOptions) -> CommandAction:
    return CommandAction(settings, options)


SINK = Part("a program, and its counterpart at the end", _make, CommandOptions, needs=("path",))
