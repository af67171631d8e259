"""What kind of trouble an alarm states, deepest first: what lies deeper may cause what lies above."""

import re
from functools import lru_cache
from typing import NamedTuple

from alerting.records.alarm import KINDS, OURS, Alarm

LAYERS = ("power", "equipment", "link", "software", "attack", "protocol", "load", "other")
POWER, EQUIPMENT, LINK, SOFTWARE, ATTACK, PROTOCOL, LOAD, OTHER = range(8)

_POWER_CAUSES = """
    batteryChargingFailure batteryDischarging batteryFailure commercialPowerFailure fuseFailure
    generatorFailure lowBatteryThreshold lowFuel powerProblem powerProblems powerSupplyFailure
    rectifierFailure rectifierHighVoltage rectifierLowVoltage
"""
_LINK_CAUSES = """
    aIS degradedSignal excessiveBER farEndReceiverFailure framingError lossOfFrame lossOfMultiFrame
    lossOfPointer lossOfSignal receiveFailure receiverFailure remoteAlarmInterface
    signalQualityEvaluationFailure transceiverFailure transmissionError transmitFailure
    transmitterFailure unavailable
"""
_POWER = frozenset(_POWER_CAUSES.split())
_LINK = frozenset(_LINK_CAUSES.split())
_DOWN = ("lossOfSignal", "lossOfFrame", "aIS", "unavailable")
_BY_TYPE = {
    "equipmentAlarm": EQUIPMENT,
    "environmentalAlarm": EQUIPMENT,
    "communicationsAlarm": PROTOCOL,
    "processingErrorAlarm": SOFTWARE,
    "qualityOfServiceAlarm": LOAD,
    "securityServiceOrMechanismViolation": ATTACK,
    "operationalViolation": ATTACK,
}
_OWN = {
    "link-cut": LINK,
    "exporter-down": EQUIPMENT,
    "volumetric-attack": ATTACK,
    "port-scan": ATTACK,
    "brute-force": ATTACK,
    "dns-tunnel": ATTACK,
    "unusual-upload": ATTACK,
    "beacon": ATTACK,
    "spoofed-sources": ATTACK,
    "slow-leak": LOAD,
    "deviation": LOAD,
    "predicted": LOAD,
}
# A word of a kind may stand between underscores, where the border of words is none: ETH_LOS, FAN_FAIL.
_LINK_DOWN = re.compile(
    r"link.?down|if.?down|port.?down|(link|interface|trunk|carrier).?(is.)?(down|fail|lost)|"
    r"loss.?of.?(signal|light|frame|carrier)|(?<![a-z])lo[sf](?![a-z])",
    re.I,
)
_NODE_DOWN = re.compile(
    r"(node|device|host|router|element|model|chassis).?(is.)?(down|lost)|exporter-down", re.I
)
_UNREACHABLE = re.compile(r"unreachable|contact.?lost|not.?respond|no.?response", re.I)
# Words that kinds of alarm carry whatever the maker, for sources that give no probable cause.
_WORDS = (
    (
        POWER,
        re.compile(r"power|battery|rectifier|mains|(?<![a-z])psu(?![a-z])|voltage|genset", re.I),
    ),
    (
        PROTOCOL,
        re.compile(
            r"bgp|ospf|isis|is-is|(?<![a-z])ldp|bfd|rsvp|(lsp|tunnel).?(is.)?(down|fail)|neighbo|adjacen|session|peer",
            re.I,
        ),
    ),
    (
        EQUIPMENT,
        re.compile(
            r"card|board|(?<![a-z])bd(?![a-z])|module|(?<![a-z])fan|(?<![a-z])temp(?!la|or)|hightemp|hardware|"
            r"chassis|fabric",
            re.I,
        ),
    ),
    (LOAD, re.compile(r"cpu|memory|congest|utili[sz]|threshold|latency|packet.?loss|queue", re.I)),
)
_CHANGE = re.compile(r"config(uration)?.?(change|event|commit|man)|cfg.?change|commit", re.I)


class Nature(NamedTuple):
    """What an alarm says by its type alone."""

    layer: int  # an index of LAYERS
    link_down: bool  # a link carries nothing
    node_down: bool  # a whole node is gone
    change: bool  # the configuration changed: that is no fault


def nature_of(alarm: Alarm) -> Nature:
    """Return what an alarm says by its type."""
    return _nature(alarm.source == OURS, alarm.kind, alarm.event_type, alarm.probable_cause)


@lru_cache(4096)
def _nature(ours: bool, kind: str, event_type: str, cause: str) -> Nature:
    if ours:
        event_type, cause = KINDS.get(kind, (event_type, cause))
    return Nature(
        _OWN[kind] if ours and kind in _OWN else _layer(kind, event_type, cause),
        kind == "link-cut" if ours else cause in _DOWN or bool(_LINK_DOWN.search(kind)),
        bool(_NODE_DOWN.search(kind)),
        bool(_CHANGE.search(kind)),
    )


def _layer(kind: str, event_type: str, cause: str) -> int:
    if cause in _POWER:
        return POWER
    if cause in _LINK or _LINK_DOWN.search(kind):
        return LINK
    if _NODE_DOWN.search(kind):
        return EQUIPMENT
    if _UNREACHABLE.search(kind):
        return PROTOCOL  # somebody cannot reach it: that says little of what is broken
    if event_type in _BY_TYPE:
        return _BY_TYPE[event_type]
    return next((layer for layer, words in _WORDS if words.search(kind)), OTHER)


@lru_cache(4096)
def says_lost(kind: str) -> bool:
    """Whether a kind of alarm says that somebody cannot reach a node."""
    return bool(_UNREACHABLE.search(kind))


def is_hard(alarm: Alarm, nature: Nature) -> bool:
    """Whether the network itself states a fault: link, peer or device down, or critical at all."""
    if alarm.source == OURS:
        return bool(alarm.explain.get("disposition") == "hard")
    return alarm.severity == "critical" or nature.link_down or nature.node_down
