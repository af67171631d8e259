"""FlowSpec proposals: narrow, in ExaBGP's words, discarding only what is nobody's service."""

import pytest

from alerting.causes.flowspec import rule
from runtime.ports import Talker


def talker(number: int, **changes: object) -> Talker:
    base = {
        "source": f"198.51.100.{number}", "destination": "203.0.113.7", "protocol": 17,
        "source_port": 123, "destination_port": 40_000 + number, "exporter": "ams1",
        "ingress_interface": 1, "egress_interface": 2, "tcp_flags": 0, "octets": 1000, "packets": 2,
    }  # fmt: skip
    return Talker(**{**base, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("vector", "host", "changes", "expected"),
    [
        pytest.param(
            "NTP amplification", "203.0.113.7", {},
            "flow route { match { destination 203.0.113.7/32; protocol udp; source-port =123; }"
            " then { discard; } }",
            id="amplification",
        ),
        pytest.param(
            "SYN flood", "203.0.113.7", {"protocol": 6, "destination_port": 443},
            "flow route { match { destination 203.0.113.7/32; protocol tcp; destination-port =443;"
            " tcp-flags [ syn ]; } then { rate-limit 2000000; } }",
            id="syn",
        ),
        pytest.param(
            "UDP flood", "2001:db8::7", {},
            "flow route { match { destination 2001:db8::7/128; next-header udp; }"
            " then { rate-limit 2000000; } }",
            id="many-ports-v6",
        ),
        pytest.param(
            "ICMP flood", "203.0.113.7", {"protocol": 1},
            "flow route { match { destination 203.0.113.7/32; protocol icmp; }"
            " then { rate-limit 2000000; } }",
            id="icmp",
        ),
    ],
)  # fmt: skip
def test_rule_of_a_vector(vector: str, host: str, changes: dict, expected: str) -> None:
    talkers = [talker(n, **changes) for n in range(8)]
    assert rule(vector, host, talkers, usual_octets=1e6) == expected


def test_a_limit_never_cuts_a_quiet_service_off() -> None:
    assert "rate-limit 125000" in rule("UDP flood", "203.0.113.7", [], usual_octets=0.0)


def test_ports_that_do_not_agree_are_not_named_and_nothing_is_discarded() -> None:
    mixed = [talker(n, source_port=(53, 123, 1900)[n % 3]) for n in range(9)]
    made = rule("DNS amplification", "203.0.113.7", mixed, usual_octets=1e6)
    assert "source-port" not in made
    assert "rate-limit" in made
