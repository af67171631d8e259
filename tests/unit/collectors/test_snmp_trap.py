"""The decoder of traps: alarms, storms, flapping, v3, informs, limits, the ledger's sum."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collectors.block import DatagramBlock
from collectors.config import ListenerSettings
from collectors.datagram import Datagram, pack
from collectors.registry import make_decoder
from collectors.snmp.trap import TrapDecoder
from collectors.snmp.trap_ledger import FATES
from runtime.checkpoint import Snapshot
from runtime.component import Context
from telemetry.batch import Batch
from telemetry.errors import ConfigError
from telemetry.identity import address_pair
from telemetry.snmp import ber, message, usm
from telemetry.snmp.ber import Tag
from tests.support.snmp_messages import (
    LINK_DOWN,
    LINK_UP,
    link,
    told,
    trap_bindings,
    trap_v1,
    trap_v2,
    trap_v3,
    varied,
)  # fmt: skip
from tocsin.testing import make_context
from tocsin.testing.rows import rows_of

SECOND = 1_000_000_000
START = 1_790_000_000 * SECOND


def block(*datagrams: bytes, at: Sequence[int] = (), sender: str = "192.0.2.1") -> DatagramBlock:
    """Return datagrams of one sender, a millisecond apart or `at` milliseconds."""
    high, low = address_pair(sender)
    times = at or range(len(datagrams))
    return pack(
        [
            Datagram(START + ms * 1_000_000, high, low, 4000, 5162, data)
            for ms, data in zip(times, datagrams, strict=True)
        ]
    )


def decoder(context: Context | None = None, **options: Any) -> TrapDecoder:
    settings = ListenerSettings(kind="snmp-trap", listen="udp://127.0.0.1:5162", options=options)
    made = make_decoder(settings, context or make_context("collectors.traps"))
    assert isinstance(made, TrapDecoder)
    return made


def all_rows(made: TrapDecoder, *blocks: DatagramBlock, until: int = 1) -> list[Batch]:
    batches = [batch for one in blocks for batch in made.decode(one)]
    return batches + made.advance(START + until * SECOND)


def test_link_down_and_up_are_one_alarm_and_its_clear() -> None:
    made = all_rows(
        decoder(), block(link(3, up=False, name="et-0/0/3"), link(3, up=True), at=(0, 400))
    )
    down, up = rows_of(made, "alarm")
    assert (down["entity"], down["severity"], down["state"]) == (
        "192.0.2.1:et-0/0/3",
        "major",
        "raised",
    )
    assert (up["state"], up["alarm_id"]) == ("cleared", down["alarm_id"])
    assert (down["kind"], down["probable_cause"], down["event_type"]) == (
        "linkDown", "lossOfSignal", "communicationsAlarm",
    )  # fmt: skip
    assert down["specific_problem"] == "et-0/0/3 is down (admin up)"
    assert down["source"] == "traps"
    detail = json.loads(down["explain"])["detail"]
    assert detail["variables"]["ifOperStatus.3"] == "down"
    assert detail["uptime_seconds"] == 12.34


def test_the_clear_finds_its_alarm_whichever_of_them_names_the_interface() -> None:
    for first, second in (("et-0/0/3", ""), ("", "et-0/0/3")):
        made = all_rows(
            decoder(), block(link(3, up=False, name=first), link(3, up=True, name=second), at=(0, 1500)),
            until=2,
        )  # fmt: skip
        down, up = rows_of(made, "alarm")
        assert down["alarm_id"] == up["alarm_id"]


def test_an_interface_that_was_renumbered_keeps_its_alarm() -> None:
    data = [link(3, up=False, name="ae7"), link(9, up=True, name="ae7")]
    down, up = rows_of(all_rows(decoder(), block(*data)), "alarm")
    assert down["alarm_id"] == up["alarm_id"]


def test_a_link_that_was_shut_down_by_hand_is_only_a_warning() -> None:
    (row,) = rows_of(all_rows(decoder(), block(link(3, up=False, admin=2))), "alarm")
    assert row["severity"] == "warning"


def test_a_storm_is_two_rows_a_second_and_every_trap_is_counted() -> None:
    context = make_context("collectors.traps")
    made = decoder(context)
    storm = [link(1 + n % 3, up=False, request_id=n, uptime=n) for n in range(3000)]
    batches = all_rows(made, block(*storm, at=[n // 2 for n in range(3000)]), until=2)
    alarms = rows_of(batches, "alarm")
    assert len(alarms) == 12  # three interfaces, two seconds: the first, and the count of the rest
    assert sum(row["occurrence"] for row in alarms) == 3000
    assert alarms[0]["changed_ns"] == START, "the first is told at once"
    assert json.loads(alarms[3]["explain"])["detail"]["count"] == 666
    samples = rows_of(batches, "sample")
    assert sum(row["value"] for row in samples) == 3000
    assert {row["kind"] for row in samples} == {2}
    counted = context.metrics.value("collector_snmp_notifications_total", result="counted")
    assert counted == 3000 - 12


def test_resources_that_no_key_names_are_told_apart_within_a_second() -> None:
    """Of linkDown without ifIndex (locIfReason alone) the first variable's instance names the interface."""
    reason = "1.3.6.1.4.1.9.2.2.1.1.20"
    storm = [trap_v2(LINK_DOWN, [(f"{reason}.{n}", ber.octets(b"lost"))]) for n in (3, 4, 3, 4, 4)]
    found = rows_of(all_rows(decoder(), block(*storm)), "alarm")
    occurrences = {row["entity"]: 0 for row in found}
    for row in found:
        occurrences[row["entity"]] += row["occurrence"]
    assert occurrences == {
        f"192.0.2.1:interface {reason}.3": 2, f"192.0.2.1:interface {reason}.4": 3
    }  # fmt: skip


def test_flapping_keeps_its_order_then_its_last_state_and_its_count() -> None:
    few = [link(1, up=n % 2 == 1) for n in range(4)]
    states = [row["state"] for row in rows_of(all_rows(decoder(), block(*few)), "alarm")]
    assert states == ["raised", "cleared", "raised", "cleared"]
    many = [link(1, up=n % 2 == 0) for n in range(201)]
    found = rows_of(all_rows(decoder(), block(*many)), "alarm")
    assert len(found) == 9
    assert found[-1]["state"] == "cleared"  # the 201st said up
    assert sum(row["occurrence"] for row in found) == 201
    assert json.loads(found[-1]["explain"])["detail"]["changes"] > 100


def test_a_count_never_brings_back_what_was_cleared() -> None:
    data = [link(1, up=False), link(1, up=False, request_id=2), link(1, up=True)]
    found = rows_of(all_rows(decoder(), block(*data)), "alarm")
    assert [(row["state"], row["occurrence"]) for row in found] == [
        ("raised", 1), ("cleared", 1), ("cleared", 1),
    ]  # fmt: skip


def test_a_trap_without_a_rule_is_a_log_row_storm_safe() -> None:
    storm = [
        trap_v2("1.3.6.1.4.1.99999.0.5", told(f"1.3.6.1.4.1.99999.1 i {n}")) for n in range(500)
    ]
    batches = all_rows(decoder(), block(*storm))
    row, rest = rows_of(batches, "log")
    assert not rows_of(batches, "alarm")
    assert (row["host"], row["app"], row["message_id"]) == (
        "192.0.2.1",
        "snmp-trap",
        "1.3.6.1.4.1.99999.0.5",
    )
    assert json.loads(row["variables"])["count"] + json.loads(rest["variables"])["count"] == 500
    assert rest["message"].endswith("; 499 such traps within this second")
    assert rest["pattern_id"] == row["pattern_id"]


def test_or_an_indeterminate_alarm_where_that_is_wanted() -> None:
    made = decoder(unmapped="alarm")
    (row,) = rows_of(all_rows(made, block(trap_v2("1.3.6.1.4.1.99999.0.5"))), "alarm")
    assert (row["severity"], row["kind"]) == ("indeterminate", "1.3.6.1.4.1.99999.0.5")


def test_whom_a_trap_is_about() -> None:
    agent = bytes((10, 9, 8, 7))
    forwarded = trap_v2(
        LINK_DOWN, [(message.SNMP_TRAP_ADDRESS, ber.element(Tag.IP_ADDRESS, agent))]
    )
    v1 = trap_v1("1.3.6.1.4.1.9", 0, 0, agent=agent)
    for data in (forwarded, v1):
        (row,) = rows_of(all_rows(decoder(), block(data)), "alarm")
        assert row["entity"].startswith("10.9.8.7")
        named = decoder(names={"10.9.8.7": "ams1"})
        assert rows_of(all_rows(named, block(data)), "alarm")[0]["entity"].startswith("ams1")
        (row,) = rows_of(all_rows(decoder(device="sender"), block(data)), "alarm")
        assert row["entity"].startswith("192.0.2.1")
    (row,) = rows_of(all_rows(decoder(), block(trap_v1("1.3.6.1.4.1.9", 0, 0))), "alarm")
    assert row["entity"] == "192.0.2.1"  # 0.0.0.0 says nothing


def test_what_never_says_that_it_is_over_ends_by_itself() -> None:
    made = decoder()
    (row,) = rows_of(all_rows(made, block(trap_v2("1.3.6.1.6.3.1.1.5.1"))), "alarm")
    assert not rows_of(made.advance(START + 800 * SECOND), "alarm")
    kept = Snapshot()
    made.snapshot(kept)
    again = decoder()
    again.restore(kept)
    for one in (made, again):
        (over,) = rows_of(one.advance(START + 901 * SECOND), "alarm")
        assert (over["state"], over["alarm_id"]) == ("cleared", row["alarm_id"])
        assert over["cleared_ns"] == START + 900 * SECOND
        assert not rows_of(one.advance(START + 2000 * SECOND), "alarm")


def test_what_a_crash_must_not_lose_is_counted() -> None:
    made = decoder()
    made.decode(block(link(1, up=False, name="a")))
    first = made.changes
    assert first > 0
    made.decode(block(link(1, up=False, name="a"), at=(1500,)))
    assert made.changes == first, "nothing new"
    made.decode(block(trap_v2("1.3.6.1.6.3.1.1.5.1"), at=(3000,)))
    assert made.changes > first


def test_wrong_communities_are_refused_and_counted() -> None:
    context = make_context("collectors.traps")
    made = decoder(context, communities=["noc"])
    good, bad = link(1, up=False, community="noc"), link(2, up=False)
    batches = all_rows(made, block(good, bad, bad))
    assert [row["entity"] for row in rows_of(batches, "alarm")] == ["192.0.2.1:interface 1"]
    assert context.metrics.value("collector_snmp_messages_total", verdict="unknown_community") == 2
    (ledger,) = rows_of(batches, "ledger")
    assert (ledger["sent"], ledger["decoded"], ledger["undecodable"]) == (3, 1, 2)


# ---- SNMPv3

ENGINE = (bytes.fromhex("80001f8880aabbccdd"), 4, 1000)
OTHER_USERS = {"joe": usm.User("joe", "sha256", "authpass1", "aes", "privpass1")}


def passwords(folder: Path) -> dict[str, Any]:
    (folder / "auth").write_text("authpass1\n")
    (folder / "priv").write_text("privpass1\n")
    return {"auth_password_file": str(folder / "auth"), "priv_password_file": str(folder / "priv")}


def secured(folder: Path, context: Context | None = None) -> TrapDecoder:
    user = {"auth": "sha256", "priv": "aes", **passwords(folder)}
    return decoder(context, users={"joe": user, "open": {}}, engine_id="0x8000000001020304")


JOE = OTHER_USERS["joe"]


def fates_of(context: Context) -> dict[str, int]:
    found = {
        fate: int(context.metrics.value("collector_snmp_messages_total", verdict=fate))
        for fate in FATES
    }
    return {fate: count for fate, count in found.items() if count}


def test_v3_traps_of_all_levels(tmp_path: Path) -> None:
    made = secured(tmp_path)
    pair = told("1.3.6.1.2.1.2.2.1.1.3 i 3")
    data = [
        trap_v3(JOE, ENGINE, LINK_DOWN, pair),
        trap_v3(usm.User("open"), ENGINE, LINK_DOWN, told("1.3.6.1.2.1.2.2.1.1.4 i 4")),
        trap_v3(JOE, ENGINE, LINK_DOWN, pair, message_id=8),
    ]
    first, second, again = rows_of(all_rows(made, block(*data)), "alarm")
    assert first["entity"] == "192.0.2.1:interface 3"
    assert again["alarm_id"] == first["alarm_id"]
    assert json.loads(first["explain"])["detail"]["user"] == "joe"
    assert second["entity"] == "192.0.2.1:interface 4"


def test_v3_refusals_have_reasons(tmp_path: Path) -> None:
    context = make_context("collectors.traps")
    made = secured(tmp_path, context)
    wrong = usm.User("joe", "sha256", "wrongpass", "aes", "privpass1")
    garbled = usm.User("joe", "sha256", "authpass1", "aes", "wrongpriv")
    old = (ENGINE[0], ENGINE[1], ENGINE[2] - 200)
    data = [
        trap_v3(JOE, ENGINE, LINK_DOWN),
        trap_v3(JOE, old, LINK_DOWN),  # replayed: more than 150 s behind
        trap_v3(JOE, (ENGINE[0], 3, 5000), LINK_DOWN),  # of the boot before
        trap_v3(wrong, ENGINE, LINK_DOWN),
        trap_v3(garbled, ENGINE, LINK_DOWN),
        trap_v3(usm.User("eve"), ENGINE, LINK_DOWN),
        trap_v3(usm.User("joe"), ENGINE, LINK_DOWN),
        trap_v3(JOE, ENGINE, LINK_DOWN)[:-3],
    ]
    batches = all_rows(made, block(*data))
    found = fates_of(context)
    broken = found.pop("decryption_error", 0) + found.pop("bad_type", 0)
    assert broken == 1
    assert found == {
        "ok": 1, "not_in_time_window": 2, "wrong_digest": 1, "unknown_user": 1,
        "unsupported_security_level": 1, "truncated": 1,
    }  # fmt: skip
    (ledger,) = rows_of(batches, "ledger")
    assert (ledger["sent"], ledger["decoded"], ledger["undecodable"]) == (8, 1, 7)
    assert not made.replies, "a trap is not reportable"


@pytest.mark.parametrize("auth", usm.AUTH_PROTOCOLS)
@pytest.mark.parametrize("priv", ["", *usm.PRIV_PROTOCOLS])
def test_every_pair_of_protocols_opens_what_it_wrote(auth: str, priv: str) -> None:
    user = usm.User("joe", auth, "authpass1", priv, "privpass1" if priv else "")
    data = trap_v3(user, ENGINE, LINK_DOWN)
    scoped = usm.read_scoped(usm.open_message(user, usm.read_secured(data), data))
    pdu = message.read_pdu(scoped.pdu, 0, len(scoped.pdu))
    assert message.notification_of(pdu).trap_oid == LINK_DOWN
    assert (b"\x2b\x06\x01\x06\x03\x01\x01\x05\x03" in data) == (not priv)


def test_keys_are_those_of_the_standard() -> None:
    """RFC 3414, A.3.1 and A.3.2; RFC 7860 has no vectors of its own."""
    engine = bytes.fromhex("000000000000000000000002")
    assert (
        usm.localized_key("md5", "maplesyrup", engine).hex() == "526f5eed9fcce26f8964c2930787d82b"
    )
    assert (
        usm.localized_key("sha", "maplesyrup", engine).hex()
        == "6695febc9288e36282235fc7151f128497b38f3f"
    )


def test_an_inform_s_sender_learns_who_we_are_and_is_answered_after_the_journal(
    tmp_path: Path,
) -> None:
    context = make_context("collectors.traps")
    made = secured(tmp_path, context)
    asks = usm.write_secured(
        usm.User(""), (b"", 0, 0), 5, usm.write_scoped(b"", b"", message.write_pdu(Tag.GET, 1, b"")),
        flags=usm.REPORTABLE,
    )  # fmt: skip
    made.decode(block(asks))
    (report,) = made.replies
    assert report.at_once
    ours = usm.read_secured(report.payload)
    assert ours.engine_id == bytes.fromhex("8000000001020304")
    assert b"\x2b\x06\x01\x06\x03\x0f\x01\x01\x04" in report.payload  # usmStatsUnknownEngineIDs

    made.replies.clear()
    early = trap_v3(
        JOE,
        (ours.engine_id, 0, 0),
        LINK_DOWN,
        tag=Tag.INFORM,
        flags=usm.AUTH | usm.PRIV | usm.REPORTABLE,
    )
    made.decode(block(early))
    (report,) = made.replies
    told_us = usm.read_secured(report.payload)
    assert told_us.flags == usm.AUTH, "the time is told with a proof"
    assert usm.open_message(usm.User("joe", "sha256", "authpass1"), told_us, report.payload)

    made.replies.clear()
    engine = (ours.engine_id, told_us.boots, told_us.time)
    inform = trap_v3(
        JOE, engine, LINK_DOWN, tag=Tag.INFORM, message_id=77,
        flags=usm.AUTH | usm.PRIV | usm.REPORTABLE,
    )  # fmt: skip
    batches = all_rows(made, block(inform, inform))
    first, second = made.replies
    assert not first.at_once
    answer = usm.read_secured(first.payload)
    scoped = usm.read_scoped(usm.open_message(JOE, answer, first.payload))
    pdu = message.read_pdu(scoped.pdu, 0, len(scoped.pdu))
    assert (answer.message_id, pdu.tag, pdu.request_id, pdu.error_status) == (
        77,
        Tag.RESPONSE,
        77,
        0,
    )
    sent = trap_bindings(LINK_DOWN)
    assert pdu.varbinds == message.read_varbinds(ber.element(Tag.SEQUENCE, sent), 0, len(sent) + 2)
    assert second.payload != first.payload, "each message has a salt of its own"
    (alarm,) = rows_of(batches, "alarm")
    assert alarm["occurrence"] == 1, "the one sent again counts once"
    (ledger,) = rows_of(batches, "ledger")
    assert (ledger["sent"], ledger["decoded"], ledger["duplicate"]) == (4, 3, 1)
    assert fates_of(context)["not_in_time_window"] == 1


def test_v2_informs_are_answered_each_and_counted_once() -> None:
    made = decoder()
    inform = trap_v2(LINK_DOWN, request_id=5, tag=Tag.INFORM)
    batches = all_rows(
        made, block(inform, inform, trap_v2(LINK_DOWN, request_id=6, tag=Tag.INFORM))
    )
    assert [reply.payload for reply in made.replies] == [
        message.answer_inform(inform, message.read_envelope(inform))
    ] * 2 + [made.replies[2].payload]
    assert {reply.exporter_port for reply in made.replies} == {4000}
    assert [alarm["occurrence"] for alarm in rows_of(batches, "alarm")] == [1, 1]


def test_an_inform_with_a_number_of_old_is_a_new_one() -> None:
    """An agent that restarted counts its requests from the same number again."""
    made = decoder()
    down, up = (trap_v2(trap, request_id=1, tag=Tag.INFORM) for trap in (LINK_DOWN, LINK_UP))
    batches = all_rows(made, block(down, up, up))
    assert [alarm["state"] for alarm in rows_of(batches, "alarm")] == ["raised", "cleared"]
    (ledger,) = rows_of(batches, "ledger")
    assert (ledger["decoded"], ledger["duplicate"]) == (3, 1)


def test_an_inform_that_was_not_answered_counts_when_it_comes_again_after_a_restart() -> None:
    """Unanswered: the journal may not have it, whatever the decoder's state has."""
    made, kept = decoder(), Snapshot()
    one, two = (trap_v2(LINK_DOWN, request_id=n, tag=Tag.INFORM) for n in (1, 2))
    made.decode(block(one, two))
    made.answered(made.replies[0])
    made.snapshot(kept)
    again = decoder()
    again.restore(kept)
    again.decode(block(one, two, at=(2000, 2001)))
    (ledger,) = rows_of(again.advance(START + 3 * SECOND), "ledger")
    assert (ledger["sent"], ledger["decoded"], ledger["duplicate"]) == (2, 2, 1)
    assert len(again.replies) == 2


def test_boots_and_time_rise_over_restarts_without_anything_kept(tmp_path: Path) -> None:
    def engine(at_ns: int) -> tuple[bytes, int, int]:
        return secured(tmp_path)._secure.engine(at_ns)

    _, boots, time = engine(START + 30 * SECOND)
    _, later, _ = engine(START + 100 * SECOND)
    assert later > boots
    assert 0 <= time < 60


# ---- bounds


@pytest.mark.parametrize(
    ("agent", "sender", "device"),
    [
        pytest.param("127.0.0.1", "192.0.2.1", "192.0.2.1", id="loopback-is-every-machine-s"),
        pytest.param("0.0.0.0", "192.0.2.1", "192.0.2.1", id="not-stated"),
        pytest.param("224.0.0.5", "192.0.2.1", "192.0.2.1", id="no-device"),
        pytest.param("198.51.100.7", "192.0.2.1", "198.51.100.7", id="forwarded"),
        pytest.param("127.1.0.10", "127.0.0.1", "127.1.0.10", id="one-machine"),
    ],
)
def test_a_stated_agent_counts_where_it_means_something(
    agent: str, sender: str, device: str
) -> None:
    octets = bytes(map(int, agent.split(".")))
    stated = [(message.SNMP_TRAP_ADDRESS, ber.element(Tag.IP_ADDRESS, octets))]
    for data in (
        trap_v1("1.3.6.1.4.1.9", 0, 0, agent=octets),
        trap_v2("1.3.6.1.6.3.1.1.5.1", stated),
    ):
        (alarm,) = rows_of(all_rows(decoder(), block(data, sender=sender)), "alarm")
        assert alarm["entity"] == device


def test_a_flood_of_resources_is_handed_over_early_and_none_is_lost() -> None:
    made = decoder(resources_max=100)
    batches = all_rows(made, block(*(link(n + 1, up=False) for n in range(1000))))
    assert len({row["entity"] for row in rows_of(batches, "alarm")}) == 1000
    assert len(made._reader.labels()) <= 100


def test_senders_beyond_the_bound_share_a_ledger_row_and_the_sum_holds() -> None:
    made = decoder(senders_max=3)
    batches: list[Batch] = []
    for n in range(10):
        batches += made.decode(block(link(1, up=False), b"\x30\x80", sender=f"192.0.2.{n + 1}"))
    batches += made.decode(pack([]))
    found = rows_of([*batches, *made.advance(START + SECOND)], "ledger")
    assert len(found) == 4
    for row in found:
        assert (
            row["sent"]
            == row["decoded"] + row["lost_wire"] + row["lost_kernel"] + row["undecodable"]
        )
    assert sum(row["datagrams"] for row in found) == 20
    assert sum(row["malformed"] for row in found) == 10


def test_what_the_socket_lost_stands_in_the_ledger() -> None:
    made = decoder()
    whole = block(link(1, up=False))
    lost = DatagramBlock(
        whole.payload, whole.offset, whole.length, whole.exporter_high, whole.exporter_low,
        whole.exporter_port, whole.arrival_ns, 7, START,
    )  # fmt: skip
    made.decode(lost)
    first, second = rows_of(made.advance(START + SECOND), "ledger")
    assert (first["lost_kernel"], first["sent"], second["sent"]) == (7, 7, 1)


def test_informs_that_nobody_answers_are_bounded() -> None:
    context = make_context("collectors.traps")
    made = decoder(context, informs_max=10)
    informs = [trap_v2(LINK_DOWN, request_id=n, tag=Tag.INFORM) for n in range(25)]
    made.decode(block(*informs))
    assert len(made.replies) == 10
    assert context.metrics.value("collector_snmp_dropped_total", what="reply") == 15


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"users": {"joe": {"auth": "sha1024"}}}, "sha1024"),
        ({"users": {"joe": {"priv": "aes"}}}, "priv without auth"),
        ({"users": {"joe": {"auth": "md5"}}}, "shorter than 8"),
        ({"users": {"joe": {"auth": "md5", "auth_password_file": "/nowhere"}}}, "/nowhere"),
        ({"engine_id": "80"}, "5 to 32 octets"),
        ({"mappings": ["/nowhere.toml"]}, "/nowhere.toml"),
        ({"mib_files": ["/nowhere.tsv"]}, "/nowhere.tsv"),
        ({"comunities": []}, "comunities"),
    ],
)
def test_a_wrong_setting_is_one_sentence(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        decoder(**options)


def test_rows_do_not_depend_on_where_blocks_are_cut() -> None:
    data = varied(400)
    times = [n * 11 for n in range(400)]

    def run(step: int) -> list[dict[str, Any]]:
        made = decoder()
        out: list[Batch] = []
        for first in range(0, 400, step):
            out += made.decode(block(*data[first : first + step], at=times[first : first + step]))
        out += made.advance(START + 10 * SECOND)
        return rows_of(out, "alarm") + rows_of(out, "log") + rows_of(out, "ledger")

    assert run(400) == run(1) == run(37)


def test_a_block_of_nothing_but_kernel_drops_is_no_trouble() -> None:
    made = decoder()
    assert made.decode(pack([])) == []
    assert np.array_equal(made.advance(START), [])
