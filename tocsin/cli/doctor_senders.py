"""`tocsin doctor [exporter ADDR]`: what each sender does wrong, and the router's lines that mend it."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from telemetry.schemas import FLOW_PROTOCOLS
from tocsin.cli import doctor_lines as lines
from tocsin.node.senders import SenderStatus

SECOND = 1_000_000_000
SILENT_SECONDS = 900.0
QUIET = {"syslog": 86_400.0, "snmp-trap": 7 * 86_400.0}  # who may have nothing to say for so long
OFFSET_NS = 5 * SECOND
SHARE = 0.01  # of what was sent: lost, undecodable, shed
UNPARSED = 0.2
LISTED_MAX = 20  # senders without a fault, where all are asked for
Finding = tuple[bool, str]

# What a trap was refused for, by verdict: what to do.
REFUSED = {
    "unknown_community": "its community is not in communities",
    "unknown_user": "its SNMPv3 user is not in users",
    "wrong_digest": "its SNMPv3 authentication differs: password or protocol",
    "decryption_error": "its SNMPv3 privacy differs: password or protocol",
    "unsupported_security_level": "its SNMPv3 level differs: with or without privacy",
    "not_in_time_window": "its SNMPv3 clock went back: it lost its engine boots, or somebody replays",
}
_NO_LINES: lines.Lines = {}


@dataclass(frozen=True, slots=True)
class Told:
    """What the node's counters say beside the ledgers."""

    unparsed: Mapping[str, int] = field(default_factory=dict)  # plain text, by sender of log lines
    refused: Mapping[str, int] = field(default_factory=dict)  # SNMP messages, by verdict
    unmapped: int = 0  # traps that have no rule
    named: bool = False  # a network map gives names


def told_by(metrics: str, *, named: bool) -> Told:
    """Return what stands in a metrics page."""
    unparsed: dict[str, int] = {}
    refused: dict[str, int] = {}
    unmapped = 0
    for line in metrics.splitlines():
        found = _COUNTED.match(line)
        if found is None:
            continue
        name, labels, count = found[1], dict(_LABEL.findall(found[2])), int(float(found[3]))
        if name == "syslog_unparsed":
            sender = labels.get("sender", "")
            unparsed[sender] = unparsed.get(sender, 0) + count
        elif name == "snmp_messages" and labels.get("verdict") in REFUSED and count:
            verdict = labels["verdict"]
            refused[verdict] = refused.get(verdict, 0) + count
        elif name == "snmp_notifications" and labels.get("result") == "log":
            unmapped += count
    return Told(unparsed, refused, unmapped, named)


_COUNTED = re.compile(
    r"tocsin_collector_(syslog_unparsed|snmp_messages|snmp_notifications)_total\{(.*)\} ([\d.e+]+)$"
)
_LABEL = re.compile(r'(\w+)="([^"]*)"')


_GRAPH = "links are missing in the graph"
_MAP = "name these links in the file of network.map, or let fewer devices be polled here"
_ANY = ("some are left out", "let fewer devices send here")  # of a newer node's table
_FULL = {
    ("network_map_refused", "interfaces"): (
        "names of interfaces", "some interfaces are numbers", "let fewer exporters send here",
    ),
    ("network_map_refused", "names"): (
        "names of VRFs and applications", "some are numbers", "let fewer exporters send here",
    ),
    ("network_map_refused", "devices"): (
        "names of polled devices", "some are addresses", "let fewer devices be polled here",
    ),
    ("network_map_refused", "lldp_ports"): ("ports with LLDP neighbours", _GRAPH, _MAP),
    ("network_map_refused", "bgp_sessions"): ("BGP sessions told by BMP", _GRAPH, _MAP),
    ("network_map_refused", "link_state"): ("nodes and links told by BGP-LS", _GRAPH, _MAP),
    ("network_map_refused", "routes"): (
        "routes told by BMP", "some origins are not known", "let fewer peers, or paths of a peer, be told here",
    ),
    ("collector_bmp_refused", "connection_bytes"): (
        "BMP connections", "what routers sent was not read", "raise connections_max",
    ),
    ("collector_bmp_refused", "peer_messages"): (
        "BMP peers", "their messages were not read", "raise peers_max",
    ),
}  # fmt: skip
_REFUSED = re.compile(
    r"tocsin_(network_map_refused|collector_bmp_refused)_total\{.*(?:table|what)=\"(\w+)\".*\} ([\d.e+]+)$"
)


def full_tables(metrics: str) -> Iterator[Finding]:
    """Say what a metrics page counts of what found its table full."""
    for line in metrics.splitlines():
        found = _REFUSED.match(line)
        if found is None or not (count := int(float(found[3]))):
            continue
        what, left_out, do = _FULL.get((found[1], found[2]), (found[2], *_ANY))
        yield False, f"{what}: {count} times there was no room, so {left_out}: {do}"


def findings(
    senders: Iterable[SenderStatus],
    *,
    now_ns: int,
    told: Told,
    only: str = "",
) -> Iterator[Finding]:
    """Yield a line for each sender, those with a fault first; `only` one address: with all that is known."""
    made = [_of(one, now_ns, told) for one in senders]
    made = sorted(made, key=lambda one: one[0])
    good = 0
    for well, text, mended_by in made:
        good += well
        if not only and well and good > LISTED_MAX:
            continue
        yield well, text
        if only or not well:
            for system, words in mended_by.items():
                yield well, f"    {system}: {words}"
    if good > LISTED_MAX and not only:
        yield (
            True,
            f"{good - LISTED_MAX} more senders without a fault: tocsin doctor exporter ADDRESS",
        )
    if only and not made:
        yield (
            False,
            (
                f"{only}: nothing was heard of it since the node started: is it told to send here, and from "
                f"this address (the source interface), and does a firewall let it through?"
            ),
        )


def _of(one: SenderStatus, now_ns: int, told: Told) -> tuple[bool, str, lines.Lines]:
    """Return whether a sender is well, what there is to say, and lines for its configuration."""
    silent = max(0.0, (now_ns - one.last_ns) / SECOND)
    rate = "" if one.rate < 0 else f", {one.rate:.1f} a second"
    parts = [f"{one.records} {_UNITS.get(one.protocol, 'records')} up to {silent:.0f} s ago{rate}"]
    faults: list[str] = []
    mended_by = _NO_LINES
    sent = max(one.sent, 1)
    if one.clock_offset_ns:
        parts.append(f"clock {one.clock_offset_ns / SECOND:+.1f} s")
    if one.restarts:
        parts.append(f"{one.restarts} restarts")
    for count, words, fix in _losses(one, told):
        if count > 0:
            parts.append(f"{count} {words} ({count / sent:.1%})")
            if count > SHARE * sent:
                faults.append(fix)
                mended_by = _LINES.get((one.protocol, words), mended_by)
    if one.no_template > 0:
        parts.append(f"{one.no_template} wait for a template")
        if one.no_template > SHARE * sent:
            faults.append("let it send its templates each minute")
            mended_by = lines.TEMPLATES
    parts += _of_templates(one)
    unparsed = told.unparsed.get(one.address, 0)
    if one.protocol == "syslog" and unparsed:
        parts.append(f"{unparsed} lines are plain text ({unparsed / max(one.records, 1):.0%})")
        if unparsed > UNPARSED * one.records:
            faults.append("let it send RFC 5424, or priority, time and host")
            mended_by = lines.SYSLOG
    if one.protocol == "snmp-trap" and told.unmapped:
        parts.append(
            f"{told.unmapped} traps of all senders have no rule and are log lines: name them with "
            f"`tocsin mibs`, give rules in mappings"
        )
    if one.protocol in FLOW_PROTOCOLS and not one.names and not told.named:
        parts.append("no names of its interfaces: they show as numbers")
        mended_by = mended_by or lines.NAMES
    if abs(one.clock_offset_ns) > OFFSET_NS:
        whole = round(one.clock_offset_ns / (1800 * SECOND)) / 2
        zone = f", {whole:+.1f} h: a time zone that it does not state" if whole else ""
        faults.append(f"set its clock by NTP{zone}")
        mended_by = lines.CLOCK
    if silent > QUIET.get(one.protocol, SILENT_SECONDS):
        faults.append("it is silent: is it up, and does it still send here?")
    text = f"{one.address} {one.protocol}: {', '.join(parts)}"
    if faults:
        text += ": " + "; ".join(faults)
    return not faults, text, mended_by


def _of_templates(one: SenderStatus) -> Iterator[str]:
    """Yield what a v9 or IPFIX exporter's templates say."""
    if not one.templates:
        return
    yield f"{one.templates} templates"
    if one.rates:
        yield f"sampled 1 in {', '.join(map(str, one.rates))} by its options data"
    elif one.rate_in_records:
        yield "states its sampling rate in each record"
    else:
        yield "states no sampling rate: counts stand as exported, or by sampling_override"
    if one.unread:
        some = ", ".join(one.unread_first) + (", ..." if one.unread > len(one.unread_first) else "")
        yield f"{one.unread} elements have no column here (enterprise:element {some}; decode shows them)"


def _losses(one: SenderStatus, told: Told) -> Iterator[tuple[int, str, str]]:
    """Yield (how many, what became of them, what to do)."""
    rest = one.undecodable - one.malformed - one.no_template
    if one.protocol == "snmp-poll":
        yield (
            one.lost_wire,
            "requests timed out",
            "look at its access list, at the path, at its load; raise timeout_seconds or tries",
        )
        yield rest + one.malformed, "answers were errors", "look at its view and at the log"
        return
    yield (
        one.lost_wire,
        "lost on the way",
        "look at the path, at its export rate limit, at policers",
    )
    yield one.lost_kernel, "lost in our socket", "raise receive_buffer_bytes and net.core.rmem_max"
    yield one.shed, "shed by policy", _MORE.get(one.protocol, "raise datagrams_per_second_max")
    yield one.malformed, "malformed", _MALFORMED.get(one.protocol, _CAPTURED)
    if one.protocol == "snmp-trap":
        why = "; ".join(f"{REFUSED[verdict]} ({n})" for verdict, n in told.refused.items())
        yield rest, "refused", f"of all senders: {why}" if why else "see the counters"
    else:
        yield rest, "not decodable", "see the counters"


_CAPTURED = "save a capture and look with tocsin decode"
_MALFORMED = {
    "ves": "the answer to each event says what is wrong with it",
    "ingest": "the answer, or NAME.reason beside the file in failed/, says why",
    "pm-files": "NAME.reason beside the file in failed/ says why",
    **dict.fromkeys(FLOW_PROTOCOLS, f"{_CAPTURED} --explain"),
    **dict.fromkeys(
        ("netcool", "spectrum", "alertmanager", "tmf642", "mapped"), "the log says what is wrong"
    ),
}
_UNITS = {"syslog": "lines", "snmp-trap": "traps", "snmp-poll": "answers"}
_MORE = {"syslog": "raise lines_per_second_max, or let it log less: debug is shed first"}
_LINES = {
    ("snmp-trap", "refused"): lines.TRAPS,
    ("snmp-poll", "requests timed out"): lines.POLLED,
}
