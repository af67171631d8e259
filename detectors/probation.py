"""Probation: what a new detector of a view finds is shown as "would have been sent" until it proved itself.

A class is one detector on one view, `interface/point`, `source_prefix/scan`: a new node begins with all
classes new, a new stream with those of its view, a new detector with one in each view. Hard faults are
outside. What a class on probation finds asks a trial budget of the same size, so that it takes nothing
from classes that are live.

A class goes live after `days` days in a row, of time in which its view ticked, that began no more events
than its part of the budget allows; the first day is no such day, it only learns. An operator can let it
go live before that, or hold it again; both are control rows and kept with who, when and why.

Blind to how right the findings were: it counts them.
"""

import fnmatch
import json
from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np

from detectors.config import ProbationSettings
from runtime.checkpoint import read_array, write_array
from telemetry.batch import Batch
from telemetry.errors import ConfigError

DAY_S = 86_400.0
ORDERS_KEPT = 200
CLASSES_MAX = 1000
ITSELF = "tocsin"  # who switched a class that went live by itself
KIND = "probation"  # of control rows
NOT_CONFIGURED = "no probation configured"


class ClassState(msgspec.Struct):
    """One class and where it stands."""

    name: str
    born_ns: int
    live: bool = False
    since_ns: int = 0  # when it went live or was held
    by: str = ""
    note: str = ""
    days: int = 0  # full days watched
    good_days: int = 0  # in a row, within budget
    watched_s: float = 0.0  # of the day that runs
    events: int = 0  # of the day that runs
    would: int = 0  # events that would have been told, since it was born
    allowed: float = 0.0  # events of a day within the budget


class Order(msgspec.Struct):
    """What an operator did."""

    at_ns: int
    classes: str  # the pattern, as given
    live: bool
    by: str
    note: str


def check(payload: dict[str, Any]) -> None:
    """Raise ConfigError for an order that cannot be meant."""
    if not payload.get("classes") or not isinstance(payload.get("classes"), str):
        raise ConfigError("probation needs `classes`: interface/point, */scan, *")
    if not isinstance(payload.get("live"), bool):
        raise ConfigError("probation needs `live`: true to let classes alert, false to hold them")
    if not payload.get("by"):
        raise ConfigError("probation needs `by`: who lets a class alert is kept")


class Probation:
    """All classes by name. Time is the ends of ticks."""

    def __init__(self, settings: ProbationSettings) -> None:
        self._settings = settings
        self.classes: dict[str, ClassState] = {}
        self.orders: list[Order] = []
        self._settled = False  # an older checkpoint: what ran before it is no newcomer

    @property
    def on(self) -> bool:
        """Whether newcomers are put on probation at all."""
        return self._settings.mode == "on"

    @property
    def waiting(self) -> int:
        """How many classes are on probation."""
        return sum(not one.live for one in self.classes.values())

    def holds(self, view: str, detector: str) -> bool:
        """Whether what this detector finds in this view is shown instead of sent."""
        found = self.classes.get(f"{view}/{detector}")
        return found is not None and not found.live

    def tick(
        self, view: str, detectors: Iterable[str], *, end_ns: int, tick_s: float, allowed: dict[str, float]
    ) -> None:  # fmt: skip
        """A tick of a view was looked at by these detectors: classes are born, days go by.

        `allowed` is how many events a day the budget allows each detector.
        """
        for detector in detectors:
            name = f"{view}/{detector}"
            one = self.classes.get(name)
            if one is None:
                if len(self.classes) >= CLASSES_MAX:
                    continue
                one = ClassState(name, end_ns)
                if not self.on or self._settled:
                    one.live, one.since_ns, one.by = True, end_ns, ITSELF
                    one.note = "was there before" if self._settled else NOT_CONFIGURED
                self.classes[name] = one
            if not one.live and not one.by and not self.on:  # nobody holds it but its birth
                one.live, one.since_ns, one.by, one.note = True, end_ns, ITSELF, NOT_CONFIGURED
            if not one.live:
                one.allowed = max(allowed[detector], 1.0)
                self._watch(one, tick_s, end_ns)

    def _watch(self, one: ClassState, tick_s: float, end_ns: int) -> None:
        one.watched_s += tick_s
        if one.watched_s < DAY_S:
            return
        one.watched_s -= DAY_S
        one.days += 1
        good = one.events <= one.allowed and one.days > 1
        one.good_days = one.good_days + 1 if good else 0
        one.events = 0
        if one.good_days >= self._settings.days:
            note = f"{one.good_days} days within the budget"
            one.live, one.since_ns, one.by, one.note = True, end_ns, ITSELF, note

    def event(self, view: str, detector: str) -> None:
        """Something began that would have been told."""
        one = self.classes[f"{view}/{detector}"]
        one.events += 1
        one.would += 1

    # ---- operators

    def matching(self, pattern: str) -> list[str]:
        """Return the classes that a pattern names."""
        return [name for name in sorted(self.classes) if fnmatch.fnmatchcase(name, pattern)]

    def take(self, control: Batch) -> None:
        """Do what control rows of this kind ask; the same one twice changes nothing."""
        rows = zip(
            control.texts("kind"), control.texts("payload"), control["tick_start_ns"].tolist(),
            strict=True,
        )  # fmt: skip
        for kind, payload, at_ns in rows:
            if kind == KIND:
                ask = json.loads(payload)
                self._order(Order(at_ns, ask["classes"], ask["live"], str(ask["by"])[:200],
                                  str(ask.get("note", ""))[:1000]))  # fmt: skip

    def _order(self, order: Order) -> None:
        changed = [
            one for name in self.matching(order.classes)
            if (one := self.classes[name]).live != order.live
        ]  # fmt: skip
        for one in changed:
            one.live, one.since_ns, one.by, one.note = order.live, order.at_ns, order.by, order.note
            one.watched_s, one.events, one.good_days = 0.0, 0, 0
        if changed:
            self.orders = [*self.orders[1 - ORDERS_KEPT :], order]

    # ---- telling

    def table(self) -> list[dict[str, Any]]:
        """Return every class as people see it, those on probation first."""
        made: list[dict[str, Any]] = []
        for one in sorted(self.classes.values(), key=lambda one: (one.live, one.name)):
            row = msgspec.to_builtins(one)
            row["state"] = "live" if one.live else "first day" if one.days < 1 else "probation"
            row["days_needed"] = 0 if one.live else self._settings.days - one.good_days
            row["watched_s"] = round(one.watched_s, 3)
            made.append(row)
        return made

    # ---- checkpoint

    def snapshot(self, out: Any) -> None:
        """Write classes and orders."""
        data = msgspec.msgpack.encode([list(self.classes.values()), self.orders])
        write_array(out, "probation", np.frombuffer(data, np.uint8))

    def restore(self, state: Any) -> None:
        """Take them back."""
        kept = read_array(state, "probation")
        if kept is None:
            self._settled = True
            return
        classes, self.orders = msgspec.msgpack.decode(
            kept.tobytes(), type=tuple[list[ClassState], list[Order]]
        )
        self.classes = {one.name: one for one in classes}
