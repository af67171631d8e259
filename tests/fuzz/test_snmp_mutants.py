"""Mutated notifications: nothing raises, every one has a fate, kernel and plain reader agree, state is bounded."""

from typing import Any

import numpy as np
import pytest

from collectors.config import ListenerSettings
from collectors.datagram import Datagram, pack
from collectors.registry import make_decoder
from collectors.snmp.trap import TrapDecoder
from collectors.snmp.trap_ledger import FATES
from telemetry.snmp import usm
from telemetry.snmp.ber import Tag
from tests.fuzz.test_sflow_mutants import mutate
from tests.support.snmp_messages import LINK_DOWN, told, trap_v3, varied
from tests.unit.collectors.test_snmp_ber import digests, plain_reason
from tocsin.testing import make_context

pytestmark = pytest.mark.timeout(3600)  # the deep form takes minutes
SECOND = 1_000_000_000
START = 1_790_000_000 * SECOND
OPEN = usm.User("open")
ENGINE = (bytes.fromhex("80001f8880aabbccdd"), 4, 1000)


def seeds() -> list[bytes]:
    wide = told(
        "1.3.6.1.2.1.31.1.1.1.6.3 C 18446744073709551615; 1.3.6.1.2.1.1.2.0 o 1.3.6.1.4.1.2636.1.1;"
        "1.3.6.1.6.3.18.1.3.0 a 10.9.8.7; 1.3.6.1.2.1.25.1.2.0 x 07e6060f0c1e2d052b0200;"
        "1.3.6.1.4.1.2021.10.1.6.1 x 9f780442f60000"
    )
    return [
        *varied(24),
        trap_v3(OPEN, ENGINE, LINK_DOWN, wide),
        trap_v3(OPEN, (b"", 0, 0), LINK_DOWN, tag=Tag.INFORM, flags=usm.REPORTABLE),
    ]


def test_each_mutant_has_a_fate(deep: bool) -> None:
    total = 200_000 if deep else 10_000
    context = make_context("collectors.traps")
    options = {"users": {"open": {}}, "resources_max": 500, "senders_max": 50, "unmapped": "alarm"}
    made = make_decoder(
        ListenerSettings(kind="snmp-trap", listen="udp://127.0.0.1:5162", options=options), context
    )
    assert isinstance(made, TrapDecoder)
    originals = seeds()
    ledger: dict[str, int] = dict.fromkeys(("sent", "decoded", "undecodable", "datagrams"), 0)
    rows = alarms = 0

    def take(batches: list[Any]) -> None:
        nonlocal rows, alarms
        for batch in batches:
            if batch.schema.name == "ledger":
                for name in ledger:
                    ledger[name] += int(batch[name].sum())
            rows += batch.rows
            alarms += batch.rows if batch.schema.name == "alarm" else 0

    for start in range(0, total, 500):
        data = [mutate(originals[(start + n) % len(originals)], context.random) for n in range(500)]
        at_ns = START + start * 1_000_000
        senders = context.random.integers(1, 200, 500).tolist()
        take(
            made.decode(
                pack(
                    [
                        Datagram(at_ns, 0, sender, 1, 1, one)
                        for sender, one in zip(senders, data, strict=True)
                    ]
                )
            )
        )
        take(made.advance(at_ns))
        made.replies.clear()
        if start < 5_000:
            present = [one for one in data if one]
            assert digests(present)[1] == [plain_reason(one) for one in present]
    take(made.advance(START + total * SECOND))
    fates = {
        fate: int(context.metrics.value("collector_snmp_messages_total", verdict=fate))
        for fate in FATES
    }
    assert sum(fates.values()) == total == ledger["datagrams"] == ledger["sent"]
    assert ledger["decoded"] + ledger["undecodable"] == total
    assert fates["ok"] > total // 20
    assert len([fate for fate, count in fates.items() if count]) >= 9, (
        "the mutants are all of a kind"
    )
    assert alarms > total // 20
    assert len(made._reader.labels()) <= 500
    assert len(made._timers) <= 500


def test_mutants_of_v3_messages_raise_nothing_but_decode_errors(deep: bool) -> None:
    random = np.random.default_rng(5)
    user = usm.User("joe", "sha", "authpass1", "aes", "privpass1")
    whole = trap_v3(user, ENGINE, LINK_DOWN)
    context = make_context("collectors.traps")
    made = make_decoder(
        ListenerSettings(
            kind="snmp-trap", listen="udp://127.0.0.1:5162", options={"users": {"open": {}}}
        ),
        context,
    )
    assert isinstance(made, TrapDecoder)
    made._secure._users["joe"] = user
    data = [mutate(whole, random) for _ in range(200_000 if deep else 2_000)]
    made.decode(pack([Datagram(START, 0, 1, 1, 1, one) for one in data]))
    believed = int(context.metrics.value("collector_snmp_messages_total", verdict="ok"))
    assert believed <= sum(one == whole for one in data), "a message was believed that nobody sent"
