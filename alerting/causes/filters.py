"""The FlowSpec rules against each class of attack, or why there is none, as advice in the words of an alert.

A rule that would cut far more than the attack is not proposed: an operator in a hurry applies what he finds.
What agrees by chance in a few records is not named, and no host of our own is cut off.
"""

from collections.abc import Sequence

from alerting.causes.flowspec import (
    ICMP,
    ICMP6,
    REUSED,
    TCP,
    UDP,
    Filter,
    block_of,
    covering,
    icmp_type,
    is_host,
    no_rule,
    octets_least,
    opens,
)
from runtime.ports import NetworkMap, Talker
from telemetry.security import AMPLIFIERS

RULES_MAX = 4  # of one finding
PORTS_MAX = 8  # that a rule names
SAMPLE_LEAST = 5  # records
RATE_LEAST = 125_000  # bytes/s: a limit below 1 Mbit/s would cut the service itself
RATE_FACTOR = 2.0  # of what is usual
FLOOD_LEFT = 0.5  # of a flood, at most, that its limit lets through
SMALL_LEFT = 0.1  # of one of small packets: they are few of the octets that are usual
QUESTION_OCTETS = 90  # of an ordinary question for a name, with its headers, at most
ANSWER_OCTETS = 100  # of an ordinary answer about the time: a rule by length spares those
_AMPLIFIER = {f"{name} amplification": port for port, name in AMPLIFIERS.items()}
_UNSEEN = "too few of its records are in the sample to say what it aims at"


def against_flood(
    vector: str, targets: Sequence[str], talkers: Sequence[Talker], *, usual: float, now: float
) -> list[str]:
    """Return rules against a vector at these hosts, or at their prefix; `talkers` are those of the flood.

    Answers of amplifiers are discarded. What may be a service is limited to a multiple of what is `usual`, but
    always to a part of what the target has of the flood, RATE_LEAST at least; both are bytes/s of what the alarm
    measures, often a whole prefix.
    """
    fit = [one for one in targets if is_host(one.partition("/")[0])]
    if not fit:
        return [no_rule("the sample names no host that it aims at")]
    left = SMALL_LEFT if vector in ("SYN flood", "ICMP flood") else FLOOD_LEFT
    total = max(sum(t.octets for t in talkers), 1)
    made = []
    for target in fit[:RULES_MAX]:
        mine = [t for t in talkers if t.destination == target] or talkers
        share = sum(t.octets for t in mine) / total
        limit = max(round(min(RATE_FACTOR * usual, left * now * share)), RATE_LEAST)
        ports = covering(mine, lambda t: t.destination_port, most=PORTS_MAX, by=lambda t: t.packets)
        if port := _AMPLIFIER.get(vector):
            least = octets_least(mine, above=ANSWER_OCTETS)
            rule = Filter(
                destination=target, protocol=UDP, source_ports=(port,), octets_least=least
            )
        elif vector == "ICMP flood":
            protocol = ICMP6 if ":" in target else ICMP
            rule = Filter(
                destination=target, protocol=protocol, icmp_type=icmp_type(mine), limit=limit
            )
        elif vector == "SYN flood":
            rule = Filter(destination=target, protocol=TCP, destination_ports=ports, opening=True,
                          limit=limit)  # fmt: skip
        else:
            rule = Filter(destination=target, protocol=UDP, destination_ports=ports, limit=limit)
        made.append(rule.advice())
    return made


def against_scan(source: str, talkers: Sequence[Talker], network: NetworkMap) -> list[str]:
    """Return the rule against a host that scans: one of its ports, or one of the host that it aims at."""
    if why := _unfit(source, network):
        return [no_rule(why, source)]
    if len(talkers) < SAMPLE_LEAST:
        return [no_rule(_UNSEEN, source)]
    protocols = covering(talkers, lambda t: t.protocol, most=1)
    targets = covering(talkers, lambda t: t.destination, most=1)
    if protocols and protocols[0] in (ICMP, ICMP6):
        rule = Filter(source=source, destination=_first(targets), protocol=protocols[0],
                      icmp_type=icmp_type(talkers))  # fmt: skip
        return [rule.advice()]
    ports = covering(talkers, lambda t: t.destination_port, most=PORTS_MAX)
    if not protocols or not (ports or targets):
        return [
            no_rule(
                "its probes agree on no few ports and on no host: it would cut far more", source
            )
        ]
    return [
        Filter(
            source=source, destination=_first(targets), protocol=protocols[0],
            destination_ports=ports, opening=protocols[0] == TCP and opens(talkers),
        ).advice()
    ]  # fmt: skip


def against_logins(
    source: str, port: int, talkers: Sequence[Talker], network: NetworkMap
) -> list[str]:
    """Return the rules against a host that guesses passwords: at its few targets, else at the port anywhere."""
    if why := _unfit(source, network):
        return [no_rule(why, source)]
    if not port:
        return [no_rule("no line says at which port, and it may be many people's address", source)]
    targets: tuple[str, ...] = ()
    if len(talkers) >= SAMPLE_LEAST:
        targets = covering(talkers, lambda t: t.destination, most=RULES_MAX)
    return [
        Filter(source=source, destination=one, protocol=TCP, destination_ports=(port,)).advice()
        for one in targets or ("",)
    ]


def against_tunnel(source: str, talkers: Sequence[Talker], network: NetworkMap) -> list[str]:
    """Return the rules against a DNS tunnel: long questions, for each of its few resolvers."""
    if why := _unfit(source, network):
        return [no_rule(why, source)]
    if len(talkers) < SAMPLE_LEAST:
        return [no_rule(_UNSEEN, source)]
    resolvers = covering(talkers, lambda t: t.destination, most=RULES_MAX)
    protocols = covering(talkers, lambda t: t.protocol, most=2)
    if len(resolvers) * len(protocols) > RULES_MAX:
        resolvers = ()
    made = []
    for resolver in resolvers or ("",):
        for protocol in protocols:
            mine = [t for t in talkers if t.protocol == protocol]
            least = octets_least(mine, above=QUESTION_OCTETS) if protocol == UDP else 0
            made.append(
                Filter(source=source, destination=resolver, protocol=protocol,
                       destination_ports=(53,), octets_least=least).advice()
            )  # fmt: skip
    return made


def against_upload(
    source: str, talkers: Sequence[Talker], network: NetworkMap, *, most_so_far: float
) -> list[str]:
    """Return the rules that limit what a host sends to its few targets; bytes/s."""
    if why := _unfit(source, network):
        return [no_rule(why, source)]
    targets = covering(talkers, lambda t: t.destination, most=RULES_MAX, by=lambda t: t.octets)
    if not targets:
        return [no_rule("the sample does not say whom it sends to", source)]
    protocols = covering(talkers, lambda t: t.protocol, most=1, by=lambda t: t.octets)
    ports = covering(talkers, lambda t: t.destination_port, most=PORTS_MAX, by=lambda t: t.octets)
    limit = max(round(most_so_far), RATE_LEAST)
    return [
        Filter(source=source, destination=one, protocol=protocols[0] if protocols else 0,
               destination_ports=ports if protocols else (), limit=limit).advice()
        for one in targets
    ]  # fmt: skip


def against_beacon(
    source: str, target: str, talkers: Sequence[Talker], network: NetworkMap
) -> list[str]:
    """Return the rule between two hosts that meet by the clock."""
    if why := _unfit(source, network):
        return [no_rule(why, source)]
    if not is_host(target):
        return [no_rule("the sample does not say whom it meets", source)]
    mine = [t for t in talkers if t.destination == target]
    protocols = covering(mine, lambda t: t.protocol, most=1)
    ports = covering(mine, lambda t: t.destination_port, most=PORTS_MAX) if protocols else ()
    return [
        Filter(source=source, destination=target, protocol=protocols[0] if protocols else 0,
               destination_ports=ports if _has_ports(protocols) else ()).advice()
    ]  # fmt: skip


def against_bogons(talkers: Sequence[Talker]) -> list[str]:
    """Return a rule for each block that impossible sources are of; private ones only towards their target."""
    blocks = covering(talkers, lambda t: block_of(t.source), most=RULES_MAX)
    if len(talkers) < SAMPLE_LEAST or not any(blocks):
        return [no_rule("the sample does not show few blocks that its sources are of")]
    made = []
    for block in filter(None, blocks):
        mine = [t for t in talkers if block_of(t.source) == block]
        target = _first(covering(mine, lambda t: t.destination, most=1))
        if not is_host(target):
            target = ""
        if block in map(str, REUSED) and not target:
            made.append(no_rule("private space is in use inside networks", block))
        else:
            made.append(Filter(source=block, destination=target).advice())
    return made


def _unfit(source: str, network: NetworkMap) -> str:
    """Return why no rule may name a source, "" where one may."""
    if not is_host(source):
        return "it is no address of one host in the network"
    router = network.router_of(source)
    return f"it is {router}, a router of ours" if router != source else ""


def _has_ports(protocols: Sequence[int]) -> bool:
    return bool(protocols) and protocols[0] in (TCP, UDP)


def _first(values: Sequence[str]) -> str:
    return values[0] if values else ""
