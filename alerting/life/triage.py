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
SIMILAR_MIN = 3  # verdicts on the same kind and entity before advice is more than a number
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
        self.feedback: list[Feedback] = []
        self.model: Model | None = None
        self._place: dict[str, int] = {}
        self._number = 0
        self._by_kind: dict[str, Counter[str]] = {}
        self._by_entity: dict[tuple[str, str], Counter[str]] = {}

    @property
    def newest(self) -> int:
        """The number of the newest verdict, 0 where there was none."""
        return self._number

    def say(self, alarm: Alarm, verdict: str, *, by: str, note: str, now_ns: int) -> None:
        """Keep a verdict; a second one of the same person on the same occurrence replaces the first."""
        said = [one for one in self.feedback if not _is_same(one, alarm, by)]
        self._number += 1
        self.feedback = [*said[1 - FEEDBACK_MAX :], Feedback(
            self._number, now_ns, id_text(alarm.id), alarm.kind, alarm.entity, verdict, by, note,
            features(alarm),
        )]  # fmt: skip
        self._count()

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
        known = sum(same.values()) >= SIMILAR_MIN
        advice = "not clear: judge it, it will be remembered"
        if priority >= USEFUL:
            advice = "such alarms were mostly worth it: first"
        elif priority <= USELESS and known and not same["true"]:
            advice = (
                f"such alarms were never worth it here: consider `tocsin alarm silence {alarm.kind}` "
                f"or planned work for {alarm.entity}"
            )
        elif priority <= USELESS:
            advice = "such alarms were mostly not worth it: later"
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
        row, out = np.zeros((1, len(self.model.names))), np.zeros(1)
        for name, value in found.items():
            if name in self._place:
                row[0, self._place[name]] = value
        logistic(row, np.array(self.model.weights, np.float64), self.model.intercept, out)
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

    def _count(self) -> None:
        self._by_kind, self._by_entity = {}, {}
        for one in self.feedback:
            self._by_kind.setdefault(one.kind, Counter())[one.verdict] += 1
            self._by_entity.setdefault((one.kind, one.entity), Counter())[one.verdict] += 1

    def snapshot(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"feedback": self.feedback, "model": self.model, "number": self._number}

    def restore(self, data: dict[str, Any]) -> None:
        """Take it back."""
        self.feedback = msgspec.convert(data["feedback"], list[Feedback])
        self._take(msgspec.convert(data["model"], Model | None))
        self._number = int(data["number"])
        self._count()


def _is_same(one: Feedback, alarm: Alarm, by: str) -> bool:
    return one.alarm == id_text(alarm.id) and one.by == by and one.at_ns >= alarm.raised_ns


def _counts(counts: Counter[str]) -> str:
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict])
