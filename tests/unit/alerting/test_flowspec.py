"""FlowSpec proposals: narrow, in ExaBGP's words, with what else they hit; none where one would cut too much."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from alerting.causes import filters
from alerting.causes.flowspec import Filter, block_of, covering, is_host, octets_least
from runtime.ports import Talker
from tests.support.flow_filter import read_filters
from tocsin.testing.alarms import small_network, talker

TARGET, SOURCE = "203.0.113.7", "198.51.100.7"
NETWORK = small_network()


def flood(count: int = 8, **changes: Any) -> list[Talker]:
    """Return answers of NTP to TARGET, 468 octets each, unless told otherwise."""
    return [
        talker(**{"source": f"192.0.2.{n}", "destination": TARGET, "protocol": 17, "tcp_flags": 0,
                  "source_port": 123, "destination_port": 40_000 + n, "octets": 468_000,
                  "packets": 1000} | changes)
        for n in range(count)
    ]  # fmt: skip


def sent(count: int = 20, **changes: Any) -> list[Talker]:
    """Return SYNs of SOURCE to port 22 of many hosts unless told otherwise."""
    return [
        talker(**{"source": SOURCE, "destination": f"192.0.2.{n}", "source_port": 40_000,
                  "destination_port": 22, "tcp_flags": 2, "octets": 44, "packets": 1} | changes)
        for n in range(count)
    ]  # fmt: skip


def only(said: Sequence[str]) -> str:
    """Return the match and the action of the one rule that is proposed."""
    (rule,) = read_filters("; ".join(said))
    words = rule.text.removeprefix("flow route { match { ").removesuffix(" } }")
    return words.replace(" } then {", "")


@pytest.mark.parametrize(
    ("vector", "target", "changes", "expected"),
    [
        pytest.param(
            "NTP amplification", TARGET, {},
            "destination 203.0.113.7/32; protocol udp; source-port =123; packet-length >=351; discard;",
            id="amplification",
        ),
        pytest.param(
            "SYN flood", TARGET, {"protocol": 6, "destination_port": 443, "tcp_flags": 2},
            "destination 203.0.113.7/32; protocol tcp; destination-port =443; tcp-flags [ syn&!ack ];"
            " rate-limit 400000;",
            id="syn",
        ),
        pytest.param(
            "UDP flood", "2001:db8::7", {"destination": "2001:db8::7"},
            "destination 2001:db8::7/128; next-header udp; rate-limit 2000000;", id="many-ports-v6",
        ),
        pytest.param(
            "ICMP flood", TARGET, {"protocol": 1, "destination_port": 2048},
            "destination 203.0.113.7/32; protocol icmp; icmp-type =8; rate-limit 400000;", id="ping",
        ),
        pytest.param(
            "ICMP flood", TARGET, {"protocol": 1, "destination_port": 0},
            "destination 203.0.113.7/32; protocol icmp; rate-limit 400000;", id="icmp-type-not-known",
        ),
        pytest.param(
            "ICMP flood", "2001:db8::7",
            {"destination": "2001:db8::7", "protocol": 58, "destination_port": 128 << 8},
            "destination 2001:db8::7/128; next-header =58; icmp-type =128; rate-limit 400000;",
            id="icmp-v6",
        ),
    ],
)  # fmt: skip
def test_rule_of_a_vector(vector: str, target: str, changes: dict[str, Any], expected: str) -> None:
    said = filters.against_flood(vector, (target,), flood(**changes), usual=1e6, now=4e6)
    assert only(said) == expected


def test_ordinary_answers_of_an_amplifier_pass() -> None:
    """Time and names that the target asked for: small answers from the same port."""
    said = filters.against_flood("NTP amplification", (TARGET,), flood(), usual=1e6, now=1e9)
    (rule,) = read_filters(said[0])
    answer = flood(1, octets=76, packets=1)[0]
    assert not rule.matches(answer)
    assert rule.matches(replace(answer, octets=468))
    assert (
        "also hits what else reaches 203.0.113.7 over UDP from port 123 in packets of 351"
        in said[0]
    )


def test_a_limit_is_less_than_the_flood_and_never_cuts_a_quiet_service_off() -> None:
    for usual, now, limit in ((0.0, 1e3, 125_000), (1e9, 2e8, 100_000_000), (1e7, 2e8, 20_000_000)):
        said = filters.against_flood("UDP flood", (TARGET,), flood(), usual=usual, now=now)
        assert read_filters(said[0])[0].limit == limit
    said = filters.against_flood("SYN flood", (TARGET,), flood(), usual=1e9, now=2e8)
    assert read_filters(said[0])[0].limit == 20_000_000


def test_a_limit_is_a_part_of_what_its_own_target_has_of_the_flood() -> None:
    both = flood(30) + flood(10, destination="203.0.113.8")
    said = filters.against_flood("UDP flood", (TARGET, "203.0.113.8"), both, usual=1e9, now=1e8)
    assert [rule.limit for rule in read_filters("; ".join(said))] == [37_500_000, 12_500_000]


def test_a_flood_at_several_hosts_or_at_none_that_is_known() -> None:
    both = flood(8) + flood(8, destination="203.0.113.8")
    said = filters.against_flood("NTP amplification", (TARGET, "203.0.113.8"), both, usual=0, now=0)
    assert [rule.widths for rule in read_filters("; ".join(said))] == [(32, 0), (32, 0)]
    for target in ("", "224.0.0.5", "127.0.0.1"):
        (why,) = filters.against_flood("NTP amplification", (target,), [], usual=0, now=0)
        assert why.startswith("no FlowSpec rule: ")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "source 198.51.100.7/32; protocol tcp; destination-port =22; tcp-flags [ syn&!ack ]; discard;"),
        ({"tcp_flags": 0}, "source 198.51.100.7/32; protocol tcp; destination-port =22; discard;"),
        ({"destination": TARGET}, ("destination 203.0.113.7/32; source 198.51.100.7/32; protocol tcp;"
         " destination-port =22; tcp-flags [ syn&!ack ]; discard;")),
        ({"protocol": 17, "destination_port": 161, "tcp_flags": 0},
         "source 198.51.100.7/32; protocol udp; destination-port =161; discard;"),
        ({"protocol": 1, "destination_port": 2048},
         "source 198.51.100.7/32; protocol icmp; icmp-type =8; discard;"),
        ({"source": "2001:db8::1"}, ""),
    ],
)  # fmt: skip
def test_rule_against_a_scan(changes: dict[str, Any], expected: str) -> None:
    sample = sent(**changes)
    said = filters.against_scan(sample[0].source, sample, NETWORK)
    assert only(said) == (expected or
        "source 2001:db8::1/128; next-header tcp; destination-port =22; tcp-flags [ syn&!ack ]; discard;"
    )  # fmt: skip


def test_a_scan_of_many_ports_of_one_host_names_the_host() -> None:
    sample = [replace(t, destination=TARGET, destination_port=n) for n, t in enumerate(sent(), 1)]
    assert only(filters.against_scan(SOURCE, sample, NETWORK)) == (
        "destination 203.0.113.7/32; source 198.51.100.7/32; protocol tcp; tcp-flags [ syn&!ack ]; discard;"
    )


def test_few_ports_are_named_together_and_what_agrees_on_nothing_gets_no_rule() -> None:
    ports = [replace(t, destination_port=(22, 23, 2323)[n % 3]) for n, t in enumerate(sent(30))]
    assert "destination-port [ =22 =23 =2323 ]" in only(
        filters.against_scan(SOURCE, ports, NETWORK)
    )
    spread = [replace(t, destination_port=1000 + n) for n, t in enumerate(sent(30))]
    (why,) = filters.against_scan(SOURCE, spread, NETWORK)
    assert why.startswith(f"no FlowSpec rule for {SOURCE}: its probes agree on no few ports")


@pytest.mark.parametrize("count", [0, 1, 4])
def test_a_scan_whose_sample_shows_next_to_nothing_gets_no_rule(count: int) -> None:
    (why,) = filters.against_scan(SOURCE, sent(count), NETWORK)
    assert why.startswith(f"no FlowSpec rule for {SOURCE}: too few of its records")


@pytest.mark.parametrize(
    "source",
    ["127.0.0.1", "::1", "0.0.0.0", "::", "169.254.1.1", "fe80::1", "224.0.0.1", "ff02::1",
     "255.255.255.255", "::ffff:192.0.2.7", "127.1.0.1", "name"],
)  # fmt: skip
def test_no_rule_names_what_is_no_host_in_the_network_or_a_router_of_ours(source: str) -> None:
    sample = sent(source=source)
    for said in (
        filters.against_scan(source, sample, NETWORK),
        filters.against_logins(source, 22, sample, NETWORK),
        filters.against_tunnel(source, sample, NETWORK),
        filters.against_upload(source, sample, NETWORK, most_so_far=0.0),
        filters.against_beacon(source, TARGET, sample, NETWORK),
    ):
        assert said[0].startswith(f"no FlowSpec rule for {source}: ")
        assert read_filters(said[0]) == []


def test_a_router_of_ours_is_no_host_to_block() -> None:
    (why,) = filters.against_logins("127.1.0.1", 22, (), NETWORK)
    assert why.startswith("no FlowSpec rule")
    network = small_network()
    named = replace_address(network, "ams1", "192.0.2.1")
    (why,) = filters.against_logins("192.0.2.1", 22, (), named)
    assert why == "no FlowSpec rule for 192.0.2.1: it is ams1, a router of ours"


def replace_address(network: Any, router: str, address: str) -> Any:
    """Return a network map where an address is that router's."""

    class Named:
        def router_of(self, exporter: str) -> str:
            return router if exporter == address else network.router_of(exporter)

    return Named()


def test_logins_are_blocked_at_their_few_targets_else_at_the_port() -> None:
    few = [replace(t, destination=f"192.0.2.{n % 2}") for n, t in enumerate(sent())]
    said = filters.against_logins(SOURCE, 22, few, NETWORK)
    assert [one.parts["destination"] for one in read_filters("; ".join(said))] == [
        ["192.0.2.0/32"], ["192.0.2.1/32"],
    ]  # fmt: skip
    assert only(filters.against_logins(SOURCE, 22, sent(), NETWORK)) == (
        "source 198.51.100.7/32; protocol tcp; destination-port =22; discard;"
    )
    (why,) = filters.against_logins(SOURCE, 0, (), NETWORK)
    assert "no line says at which port" in why


def test_a_tunnel_is_blocked_at_all_its_resolvers_in_its_protocol_and_by_its_long_questions() -> (
    None
):
    question = {"destination_port": 53, "protocol": 17, "tcp_flags": 0, "octets": 180}
    two = [replace(t, destination=f"192.0.2.{n % 2}") for n, t in enumerate(sent(**question))]
    rules = read_filters("; ".join(filters.against_tunnel(SOURCE, two, NETWORK)))
    assert [rule.parts["destination"] for rule in rules] == [["192.0.2.0/32"], ["192.0.2.1/32"]]
    ordinary = replace(two[0], octets=70)
    assert not any(rule.matches(ordinary) for rule in rules)
    assert all(any(rule.matches(one) for rule in rules) for one in two)
    stream = [replace(t, protocol=6, destination=TARGET, tcp_flags=0x1B) for t in two]
    assert only(filters.against_tunnel(SOURCE, stream, NETWORK)) == (
        "destination 203.0.113.7/32; source 198.51.100.7/32; protocol tcp; destination-port =53; discard;"
    )
    many = [replace(t, destination=f"192.0.2.{n}") for n, t in enumerate(two)]
    assert only(filters.against_tunnel(SOURCE, many, NETWORK)) == (
        "source 198.51.100.7/32; protocol udp; destination-port =53; packet-length >=135; discard;"
    )


def test_an_upload_is_limited_at_the_port_of_its_target() -> None:
    sample = sent(destination=TARGET, destination_port=443, octets=40_000, packets=30)
    assert only(filters.against_upload(SOURCE, sample, NETWORK, most_so_far=1e6)) == (
        "destination 203.0.113.7/32; source 198.51.100.7/32; protocol tcp; destination-port =443;"
        " rate-limit 1000000;"
    )
    (why,) = filters.against_upload(SOURCE, [], NETWORK, most_so_far=1e6)
    assert "the sample does not say whom it sends to" in why


def test_a_beacon_is_blocked_between_the_two_and_not_at_all_where_one_is_a_hash() -> None:
    assert only(filters.against_beacon(SOURCE, TARGET, sent(2, destination=TARGET), NETWORK)) == (
        "destination 203.0.113.7/32; source 198.51.100.7/32; protocol tcp; destination-port =22; discard;"
    )
    assert only(filters.against_beacon(SOURCE, TARGET, (), NETWORK)) == (
        "destination 203.0.113.7/32; source 198.51.100.7/32; discard;"
    )
    (why,) = filters.against_beacon("2001:db8::1", "#00c0ffee", (), NETWORK)
    assert "the sample does not say whom it meets" in why


def test_bogons_are_blocked_by_the_blocks_that_they_are_of() -> None:
    apart = [replace(t, source=("192.0.2.9", "250.1.2.3")[n % 2]) for n, t in enumerate(sent())]
    rules = read_filters("; ".join(filters.against_bogons(apart)))
    assert [rule.parts for rule in rules] == [
        {"source": ["192.0.2.0/24"]},
        {"source": ["240.0.0.0/4"]},
    ]
    inside = sent(source="10.7.7.7")
    (why,) = filters.against_bogons(inside)
    assert why == "no FlowSpec rule for 10.0.0.0/8: private space is in use inside networks"
    assert only(filters.against_bogons([replace(t, destination=TARGET) for t in inside])) == (
        "destination 203.0.113.7/32; source 10.0.0.0/8; discard;"
    )
    six = sent(source="4001::1", destination="2a00::1")
    assert only(filters.against_bogons(six)) == "destination 2a00::1/128; source 4000::/4; discard;"
    locators = sent(source="5f00:1::1")  # SRv6 SIDs (RFC 9602) are in use inside networks
    (why,) = filters.against_bogons(locators)
    assert why == "no FlowSpec rule for 5f00::/16: private space is in use inside networks"
    for sample in ([], sent(source="9.9.9.9")):
        assert filters.against_bogons(sample)[0].startswith("no FlowSpec rule: ")


def test_who_else_has_a_private_address_is_said() -> None:
    assert "and who else has that private address" in Filter(source="10.0.0.7").advice()
    assert "private" not in Filter(source=SOURCE).advice()


def test_what_a_sample_agrees_on() -> None:
    sample = sent(9) + sent(1, destination_port=23)
    assert covering(sample, lambda t: t.destination_port, most=1) == (22,)
    assert (
        covering(sample + sent(1, destination_port=23), lambda t: t.destination_port, most=1) == ()
    )
    assert covering([], lambda t: t.destination_port, most=1) == ()
    few = [replace(t, destination_port=n) for n, t in enumerate(sent(5))]
    assert covering(few, lambda t: t.destination_port, most=8) == ()
    assert octets_least(flood(9) + flood(1, octets=40_000), above=100) == 351
    assert octets_least(flood(5) + flood(5, octets=60_000), above=100) == 0
    assert octets_least([], above=0) == 0
    assert is_host("64:ff9b::c000:207")
    assert block_of("::1") == "::/96"
