"""The explain block of an alarm of ours, as its claim of this tick shows it."""

from typing import Any

from alerting.records.alarm import Alarm, Claim
from alerting.words.amounts import rounded

TREND_RATIO = 1.15  # of the sizes of the deviation, last against first
TREND_TICKS_MIN = 4
ATTACHED_SHOWN = 20
FILTERS_SHOWN = 6


def explain(alarm: Alarm, claim: Claim) -> dict[str, Any]:
    """Return the explain block of an alarm as its claim of this tick shows it.

    what, where, since when, growing or not, how sure, actual against expected with its band and
    unit, why (evidence), ranked causes, what it touches, what to do, who talks most, what else it
    explains. Numbers are rounded to 6 significant digits, so that replays agree byte for byte.
    """
    trend = trend_of(alarm.sizes)
    return {
        "what": alarm.title,
        "where": claim.entity,
        "since_ns": claim.since_ns,
        "growing": trend == "growing",
        "trend": trend,
        "sure": sure(claim),
        "actual": rounded(claim.actual),
        "expected": rounded(claim.expected),
        "band": [rounded(claim.lower), rounded(claim.upper)],
        "unit": claim.unit,
        "why": claim.evidence,
        "causes": claim.causes,
        "touches": claim.affects,
        "do": advice(claim),
        "top_talkers": claim.talkers,
        "series": claim.series,
        "disposition": claim.disposition,
        **attached(alarm),
        **({"forecast": claim.forecast} if claim.forecast else {}),
    }


def advice(claim: Claim) -> str:
    """Return what to do, with the filters that a claim proposes and how many are left out."""
    more = len(claim.filters) - FILTERS_SHOWN
    left_out = [f"and {more} more of the like"] if more > 0 else []
    return "; ".join((claim.advice, *claim.filters[:FILTERS_SHOWN], *left_out))


def attached(alarm: Alarm) -> dict[str, Any]:
    """Return what else the alarm explains: how many, and the first of them."""
    return {
        "explains": alarm.attached[:ATTACHED_SHOWN],
        "explains_count": len(alarm.attached),
    }


def trend_of(sizes: list[float]) -> str:
    """Return `new`, `growing`, `steady` or `shrinking` for the deviation's size over some ticks.

    One tick against another says little: below four it is new.

    >>> trend_of([1.0, 2.0]), trend_of([1.0, 1.0, 1.5, 1.5]), trend_of([1.0] * 4), trend_of([2.0, 2.0, 1.0, 1.0])
    ('new', 'growing', 'steady', 'shrinking')
    """
    if len(sizes) < TREND_TICKS_MIN:
        return "new"
    half = len(sizes) // 2
    before = sum(sizes[:half]) / half
    after = sum(sizes[-half:]) / half
    if after > before * TREND_RATIO:
        return "growing"
    return "shrinking" if after * TREND_RATIO < before else "steady"


def sure(claim: Claim) -> str:
    """Return in words how sure Tocsin is."""
    if claim.disposition == "hard":
        return "certain: the network itself says so"
    if claim.forecast.get("outcome"):
        return "certain: it came true"
    if "probability" in claim.forecast:
        return f"{claim.forecast['probability']:.0%}, by its own forecast"
    return "very sure" if claim.score > 6 else "sure" if claim.score > 3 else "likely"
