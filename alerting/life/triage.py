"""Triage: what operators said of alarms becomes a priority and advice on the next ones. It never mutes.

The desk's teacher learns a logistic regression from verdicts (true, false, expected) and hands its
coefficients over through the control journal; here they are applied by a kernel, equal to what the teacher's
library says. The evidence is counted here: the verdicts on the same kind and entity, and on the kind.
"""

import math
from collections import Counter
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from alerting.records.alarm import Alarm
from alerting.words.amounts import rounded
from runtime.kernels import kernel
from telemetry.errors import ConfigError
from telemetry.identity import id_text

VERDICTS = ("true", "false", "expected")
FEEDBACK_MAX = 10_000
FEATURES_MAX = 5_000  # of a model
SIMILAR_MIN = 3  # verdicts on the kind before advice is more than a number; and on kind and entity before "never"
USEFUL, USELESS = 0.6, 0.25
SHOWN = 3  # features that weigh most
KIND = "triage"  # of control rows that bring a model


class Feedback(msgspec.Struct):
    """One verdict, with the alarm as it was then."""

    number: int
    at_ns: int
    alarm: str
    kind: str
    entity: str
    verdict: str
    by: str
    note: str
    features: dict[str, float]


class Model(msgspec.Struct):
    """Coefficients as the teacher exported them."""

    names: list[str]
    weights: list[float]
    intercept: float
    learned: int  # verdicts it has learned from
    at_ns: int = 0
    newest: int = 0  # number of the newest of them


@kernel("i8(const f8[:,::1], const f8[::1], f8, f8[::1])")
def logistic(
    features: NDArray[np.float64],
    weights: NDArray[np.float64],
    intercept: float,
    out: NDArray[np.float64],
) -> int:
    """Write the probability that each row is of use.

    In      features float64[N, F]; weights float64[F].
    Out     out float64[N], 1 / (1 + exp(-(features . weights + intercept))).
    Returns N, or -1 when a length is wrong: nothing was written.
    """
    if features.shape[1] != weights.size or out.size != features.shape[0]:
        return -1
    for n in range(features.shape[0]):
        total = intercept
        for f in range(weights.size):
            total += features[n, f] * weights[f]
        out[n] = 1.0 / (1.0 + math.exp(-min(max(total, -500.0), 500.0)))
    return out.size


def features(alarm: Alarm) -> dict[str, float]:
    """Return what the model knows of an alarm: numbers from 0 to 1."""
    return {
        f"kind={alarm.kind}": 1.0,
        f"kind={alarm.kind} entity={alarm.entity}": 1.0,
        f"source={alarm.source}": 1.0,
        f"severity={alarm.severity}": 1.0,
        "flapping": float(alarm.flapping),
        "often": min(math.log1p(alarm.occurrence) / 5.0, 1.0),
        "strange": min(max(alarm.best_score, 0.0) / 20.0, 1.0),
    }


def check(payload: dict[str, Any]) -> None:
    """Raise ConfigError for a model that cannot be meant."""
    try:
        model = msgspec.convert(payload, Model)
    except msgspec.ValidationError as error:
        raise ConfigError(f"triage: {error}") from error
    if len(model.names) != len(model.weights) or len(model.names) > FEATURES_MAX:
        raise ConfigError(f"triage: names and weights must be as many, {FEATURES_MAX} at most")
    if not all(map(math.isfinite, (*model.weights, model.intercept))):
        raise ConfigError("triage: weights must be finite")


class Triage:
    """All verdicts, the newest model, and what it says of an alarm."""

    def __init__(self) -> None:
        self.model: Model | None = None
        self._place: dict[str, int] = {}
        self._said: dict[int, Feedback] = {}  # by number
        self._last: dict[tuple[str, str], int] = {}  # (alarm, person): number of the last verdict
        self._number = 0
        self._by_kind: dict[str, Counter[str]] = {}
        self._by_entity: dict[tuple[str, str], Counter[str]] = {}

    @property
    def feedback(self) -> list[Feedback]:
        """All verdicts, oldest first."""
        return list(self._said.values())

    @property
    def newest(self) -> int:
        """The number of the newest verdict, 0 where there was none."""
        return self._number

    def say(self, alarm: Alarm, verdict: str, *, by: str, note: str, now_ns: int) -> None:
        """Keep a verdict; a second one of the same person on the same occurrence replaces the first."""
        before = self._said.get(self._last.get((id_text(alarm.id), by), 0))
        if before is not None and before.at_ns >= alarm.raised_ns:
            self._take_back(before)
        elif len(self._said) >= FEEDBACK_MAX:
            self._take_back(next(iter(self._said.values())))
        self._number += 1
        self._keep(Feedback(
            self._number, now_ns, id_text(alarm.id), alarm.kind, alarm.entity, verdict, by, note,
            features(alarm),
        ))  # fmt: skip

    def _keep(self, one: Feedback) -> None:
        self._said[one.number] = one
        self._last[one.alarm, one.by] = one.number
        self._by_kind.setdefault(one.kind, Counter())[one.verdict] += 1
        self._by_entity.setdefault((one.kind, one.entity), Counter())[one.verdict] += 1

    def _take_back(self, one: Feedback) -> None:
        del self._said[one.number]
        if self._last.get((one.alarm, one.by)) == one.number:
            del self._last[one.alarm, one.by]
        _subtract(self._by_kind, one.kind, one.verdict)
        _subtract(self._by_entity, (one.kind, one.entity), one.verdict)

    def learn(self, payload: dict[str, Any], now_ns: int) -> None:
        """Take a model from the control journal."""
        check(payload)
        self._take(msgspec.structs.replace(msgspec.convert(payload, Model), at_ns=now_ns))

    def _take(self, model: Model | None) -> None:
        self.model = model
        self._place = {name: i for i, name in enumerate(model.names)} if model else {}

    def advise(self, alarm: Alarm) -> dict[str, Any]:
        """Return priority, advice and evidence; empty where nobody ever judged such an alarm."""
        kind = self._by_kind.get(alarm.kind)
        if self.model is None or kind is None:
            return {}
        found = features(alarm)
        priority = self._probability(found)
        same = self._by_entity.get((alarm.kind, alarm.entity), Counter())
        advice = "not clear: judge it, it will be remembered"
        if kind.total() < SIMILAR_MIN:
            pass  # what other kinds are like is no evidence for this one
        elif priority >= USEFUL and _mostly(kind, true=True) and _mostly(same, true=True):
            advice = "such alarms were mostly worth it: first"
        elif priority <= USELESS and _mostly(kind, true=False) and _mostly(same, true=False):
            advice = "such alarms were mostly not worth it: later"
            if same.total() >= SIMILAR_MIN and not same["true"]:
                hide = f"shelve {id_text(alarm.id)}" if kind["true"] else f"silence {alarm.kind}"
                advice = (
                    f"such alarms were never worth it here: consider `tocsin alarm {hide}` "
                    f"or planned work for {alarm.entity}"
                )
        return {
            "priority": rounded(priority, 3),
            "advice": advice,
            "evidence": [
                *([f"{alarm.kind} on {alarm.entity}: {_counts(same)}"] if same else []),
                f"{alarm.kind} anywhere: {_counts(kind)}",
                *self._strongest(found),
            ],
            "learned_from": self.model.learned,
        }

    def _probability(self, found: dict[str, float]) -> float:
        assert self.model is not None
        known = [name for name in found if name in self._place]  # the others count nothing
        row = np.array([[found[name] for name in known]], np.float64).reshape(1, len(known))
        weights = np.array([self.model.weights[self._place[name]] for name in known], np.float64)
        out = np.zeros(1)
        logistic(row, weights, self.model.intercept, out)
        return float(out[0])

    def _strongest(self, found: dict[str, float]) -> list[str]:
        assert self.model is not None
        parts = [
            (value * self.model.weights[self._place[name]], name)
            for name, value in found.items()
            if name in self._place
        ]
        parts.sort(key=lambda part: (-abs(part[0]), part[1]))
        return [f"{name}: {part:+.2f}" for part, name in parts[:SHOWN] if abs(part) >= 0.005]

    def snapshot(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"feedback": self.feedback, "model": self.model, "number": self._number}

    def restore(self, data: dict[str, Any]) -> None:
        """Take it back."""
        self._take(msgspec.convert(data["model"], Model | None))
        self._number = int(data["number"])
        for one in msgspec.convert(data["feedback"], list[Feedback]):
            self._keep(one)


def _mostly(counts: Counter[str], *, true: bool) -> bool:
    """Whether at least half of some verdicts, or none, are of one side."""
    return 2 * counts["true"] >= counts.total() if true else 2 * counts["true"] <= counts.total()


def _subtract(counts: dict[Any, Counter[str]], key: Any, verdict: str) -> None:
    counts[key][verdict] -= 1
    if not counts[key].total():
        del counts[key]


def _counts(counts: Counter[str]) -> str:
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict])
