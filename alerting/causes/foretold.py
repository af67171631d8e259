"""Claims of predicted alerts: what will pass its limit, when, how surely, and how good such words were."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from alerting.causes.rows import Row, measured, unit_of
from alerting.records.alarm import Claim
from alerting.words.amounts import amount, span
from runtime.ports import NetworkMap

QUANTILES = ("q05", "q25", "q50", "q75", "q95")


def predicted(rows: Sequence[Row], network: NetworkMap) -> list[Claim]:
    """Return a claim for each entity that a prediction is about, the surest of each.

    What fills a link fills the interfaces at both its ends: that is one claim, of the link.
    """
    best: dict[str, Row] = {}
    for row in rows:
        if row.detector == "predicted":
            entity = _link(row, network) or row.key.entity
            known = best.get(entity)
            if known is None or row.score > known.score:
                best[entity] = row
    return [_claim(row, entity) for entity, row in best.items()]


def _link(row: Row, network: NetworkMap) -> str:
    if row.view != "interface":
        return ""
    face = network.interface(row.key.key["exporter"], int(row.key.key["interface"]))
    return face.link if face is not None else ""


def _claim(row: Row, entity: str) -> Claim:
    said = row.detail
    unit = unit_of(row)
    what = measured(row, entity if entity != row.key.entity else "")
    side = "above" if said["above"] else "below"
    limit, record = amount(said["limit_value"], unit), said["record"]
    lead_s = (said["likely_ns"] - said["made_ns"]) / 1e9
    if said["outcome"]:
        ahead = span((said["ended_ns"] - said["made_ns"]) / 1e9)
        title = f"{what} is {side} {limit}, as was predicted {ahead} before"
    else:
        title = (
            f"{what} will be {side} {limit} in about {span(lead_s)}: "
            f"probability {said['probability']:.2f}"
        )
    earliest = (said["earliest_ns"] - said["made_ns"]) / 1e9
    latest = (said["latest_ns"] - said["made_ns"]) / 1e9 if said["latest_ns"] else None
    by = datetime.fromtimestamp(said["likely_ns"] / 1e9, UTC).strftime("%Y-%m-%d %H:%M UTC")
    return Claim(
        "predicted", entity, "warning", title, said["made_ns"], row.score, 1, row.actual,
        row.expected, row.lower, row.upper, unit,
        evidence=[
            (f"now {amount(row.actual, unit)}; {amount(row.expected, unit)} ({amount(row.lower, unit)} to "
            f"{amount(row.upper, unit)}) expected when it is likely passed, {by}"),
            f"at the earliest in {span(earliest)}"
            + (f", nearly surely in {span(latest)}" if latest else ""),
            (f"forecasts of this series so far: mean error {said['error']:.3g}, seasonal naive "
            f"{said['error_seasonal_naive']:.3g}, over {said['forecasts_judged']}"),
            (f"predictions of limit {said['limit']} so far: {record['hit']} hit, {record['late']} late, "
            f"{record['false']} false"),
        ],
        causes=[{"kind": said["cause"], "entity": entity, "rank": 1, "why": "a steady trend"}],
        affects=list(dict.fromkeys((entity, row.key.entity))),
        advice=("make room or mend it now" if said["outcome"] else f"make room or mend it before {by}")
        + "; what grew is in its series",
        series=[f"{row.key.series_id:016x}"],
        disposition=row.disposition,
        forecast=_forecast(said, lead_s),
    )  # fmt: skip


def _forecast(said: dict[str, Any], lead_s: float) -> dict[str, Any]:
    return {
        "limit": said["limit"],
        "limit_value": said["limit_value"],
        "above": said["above"],
        "probability": said["probability"],
        "made_ns": said["made_ns"],
        "likely_ns": said["likely_ns"],
        "earliest_ns": said["earliest_ns"],
        "latest_ns": said["latest_ns"],
        "lead_seconds": lead_s,
        "quantiles": dict(zip(QUANTILES, said["quantiles"], strict=True)),
        "outcome": said["outcome"],
        "ended_ns": said["ended_ns"],
        "record": said["record"],
    }
