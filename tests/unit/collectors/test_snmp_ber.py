"""BER and messages: what is written is read, what is broken has a reason, the kernel agrees with both."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.snmp.digest import Fate, Part, Selectors, digest, hash_bytes, make_selectors
from telemetry.errors import DecodeError
from telemetry.snmp import ber, message
from telemetry.snmp.ber import Tag
from tests.support.snmp_messages import IF_INDEX, LINK_DOWN, link, trap_v1, trap_v2

NOTHING = make_selectors([], {})


def digests(
    datagrams: list[bytes], selectors: Selectors = NOTHING, *, bare: bool = False
) -> tuple[list[int], list[str]]:
    """Return (digests, verdicts) of one sender's messages by the kernel."""
    length = np.array([len(one) for one in datagrams], np.int64)
    end = np.cumsum(length)
    payload = np.frombuffer(b"".join(datagrams), np.uint8)
    size = len(datagrams)
    out = np.zeros(size, np.uint64)
    versions, pdus, verdicts = (np.zeros(size, np.uint8) for _ in range(3))
    digest(
        payload, end - length, end, np.full(size, 7, np.uint64), int(bare), selectors.traps,
        selectors.first, selectors.prefix, selectors.part, np.zeros(4, np.uint64),
        out, versions, pdus, verdicts,
    )  # fmt: skip
    return out.tolist(), [Fate(v).name.lower() for v in verdicts.tolist()]


def plain_reason(data: bytes) -> str:
    """Return what the plain reader says of a message: the kernel's oracle."""
    try:
        at, end = ber.expect(data, 0, len(data), Tag.SEQUENCE)
        version, _ = ber.integer(data, at, end)
        if version == 3:
            return "ok"
        envelope = message.read_envelope(data)
        tag, _, _ = ber.header(data, envelope.start, envelope.stop)
        if Tag.GET <= tag <= Tag.REPORT and tag not in message.NOTIFICATIONS:
            return "not_a_notification"
        message.notification_of(message.read_pdu(data, envelope.start, envelope.stop))
    except DecodeError as error:
        return error.reason
    return "ok"


@given(st.lists(st.integers(0, (1 << 32) - 1), max_size=40), st.integers(0, 2), st.integers(0, 39))
def test_oids_survive(rest: list[int], first: int, second: int) -> None:
    text = ".".join(map(str, (first, second, *rest)))
    assert ber.oid_text(ber.oid_content(text)) == text


@given(st.integers(-(1 << 31), (1 << 31) - 1))
def test_integers_survive_in_the_fewest_octets(value: int) -> None:
    data = ber.number(value)
    assert ber.integer(data, 0, len(data)) == (value, len(data))
    assert len(data) == 2 or data[2:] == value.to_bytes(len(data) - 2, "big", signed=True)


@pytest.mark.parametrize("value", [0, 127, 128, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
def test_counter64_has_all_its_range(value: int) -> None:
    data = ber.number(value, Tag.COUNTER64)
    assert ber.plain(Tag.COUNTER64, data[2:]) == value


def test_a_counter_without_its_leading_zero_is_the_number_meant() -> None:
    assert ber.plain(Tag.COUNTER32, b"\xff\xff\xff\xfe") == 4294967294
    assert ber.plain(Tag.GAUGE32, b"\x00\xff\xff\xff\xfe") == 4294967294


def test_opaque_floats() -> None:
    assert ber.plain(Tag.OPAQUE, bytes.fromhex("9f780442f60000")) == 123.0
    assert ber.plain(Tag.OPAQUE, bytes.fromhex("9f79083ff8000000000000")) == 1.5
    assert ber.plain(Tag.OPAQUE, b"\x9f\x78") == b"\x9f\x78"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"", "truncated", id="empty"),
        pytest.param(b"\x30", "truncated", id="no-length"),
        pytest.param(b"\x30\x80\x00\x00", "bad_length", id="indefinite"),
        pytest.param(b"\x30\x85\x00\x00\x00\x00\x01", "bad_length", id="length-of-five-octets"),
        pytest.param(b"\x30\x84\xff\xff\xff\xff", "truncated", id="length-beyond-the-end"),
        pytest.param(b"\x30\x03\x02\x01\x07", "bad_version", id="version-7"),
        pytest.param(b"\x30\x02\x02\x00", "bad_value", id="integer-of-no-octets"),
        pytest.param(b"\x31\x00", "bad_type", id="no-sequence"),
        pytest.param(trap_v2(LINK_DOWN)[:-1], "truncated", id="cut"),
        pytest.param(
            message.write_message(1, b"", message.write_pdu(Tag.TRAP_V2, 1, b"")),
            "no_trap_oid",
            id="no-bindings",
        ),
        pytest.param(
            message.write_message(1, b"", message.write_pdu(Tag.GET, 1, b"")),
            "not_a_notification",
            id="get",
        ),
        pytest.param(trap_v1("1.3.6.1.4.1.9", 7, 0), "bad_value", id="generic-7"),
        pytest.param(
            trap_v2(LINK_DOWN, [("1.3.6.1", b"\x06\x06\x2b\x90\x80\x80\x80\x00")]),
            "bad_oid",
            id="sub-identifier-beyond-32-bits",
        ),
        pytest.param(trap_v2(LINK_DOWN, [("1.3.6.1", b"\x06\x00")]), "bad_oid", id="empty-oid"),
        pytest.param(trap_v2(LINK_DOWN, [("1.3.6.1", b"\x40\x03abc")]), "bad_value", id="short-ip"),
        pytest.param(trap_v2(LINK_DOWN, [("1.3.6.1", b"\x13\x01a")]), "bad_type", id="no-smi-type"),
    ],
)
def test_what_is_broken_has_a_reason_and_the_kernel_gives_the_same(
    data: bytes, reason: str
) -> None:
    assert plain_reason(data) == reason
    # a neighbour on either side: the kernel must not read beyond its own message
    good = link(1, up=False)
    assert digests([good, data, good])[1] == ["ok", reason, "ok"]


@given(st.data())
def test_kernel_and_plain_reader_agree_on_mutants(data: st.DataObject) -> None:
    base = bytearray(
        data.draw(
            st.sampled_from(
                [
                    link(3, up=False, name="et-0/0/3"),
                    trap_v1("1.3.6.1.4.1.9.9.187.0.1", 6, 1, [(f"{IF_INDEX}.3", ber.number(3))]),
                    trap_v2(LINK_DOWN, [("1.3.6.1.2.1.1.2.0", ber.oid("1.3.6.1.4.1.2636.1.1"))]),
                ]
            )
        )
    )
    for _ in range(data.draw(st.integers(1, 3))):
        base[data.draw(st.integers(0, len(base) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(base[: data.draw(st.integers(0, len(base)))] if data.draw(st.booleans()) else base)
    if cut:
        assert digests([cut])[1] == [plain_reason(cut)]


SELECTED = make_selectors(
    [message.SNMP_TRAP_ADDRESS],
    {LINK_DOWN: [(IF_INDEX, Part.WHOLE), ("1.3.6.1.2.1.2.2.1", Part.NAME)]},
)


def test_a_digest_is_the_news_and_nothing_else() -> None:
    same = [link(3, up=False, request_id=n, uptime=n * 100) for n in range(5)]
    other = [link(4, up=False), link(3, up=True), trap_v2(LINK_DOWN, community="private")]
    found, verdicts = digests([*same, *other], SELECTED)
    assert set(verdicts) == {"ok"}
    assert len(set(found[:5])) == 1
    assert len({found[0], *found[5:]}) == 4


def test_without_its_key_the_names_of_all_variables_are_the_news() -> None:
    state, reason = "1.3.6.1.4.1.99.1", "1.3.6.1.4.1.99.2"
    selectors = make_selectors(
        [], {LINK_DOWN: [(IF_INDEX, Part.WHOLE), (state, Part.BESIDE)], "1.3.6.1": []}
    )

    def trap(*pairs: tuple[str, bytes], of: str = LINK_DOWN) -> bytes:
        return trap_v2(of, list(pairs))

    def news(*traps: bytes) -> int:
        return len(set(digests(list(traps), selectors)[0]))

    up, down, lost = ber.number(1), ber.number(2), ber.octets(b"lost")
    key, empty = (f"{IF_INDEX}.3", ber.number(3)), (f"{IF_INDEX}.0", ber.octets(b""))
    assert news(trap((f"{reason}.3", lost)), trap((f"{reason}.4", lost))) == 2
    assert news(trap((f"{reason}.3", lost)), trap((f"{reason}.3", up))) == 1
    assert news(trap((state, up), (f"{reason}.3", up)), trap((state, up), (f"{reason}.4", up))) == 2
    assert (
        news(trap((state, up), (f"{reason}.3", up)), trap((state, down), (f"{reason}.3", up))) == 2
    )
    assert news(trap(key, (f"{reason}.3", lost)), trap((f"{reason}.4", lost), key)) == 1
    assert news(trap(empty, (f"{reason}.3", lost)), trap(empty, (f"{reason}.4", lost))) == 2
    assert news(*(trap((f"{reason}.{n}", lost), of="1.3.6.1") for n in (3, 4))) == 1


def test_traps_without_any_variable_are_told_apart() -> None:
    link_up = LINK_DOWN[:-1] + "4"
    selectors = make_selectors([], {one: [(IF_INDEX, Part.WHOLE)] for one in (LINK_DOWN, link_up)})
    first, again, other = (trap_v1("1.3.6.1.4.1.9", kind, 0) for kind in (2, 2, 3))
    found = digests([first, again, other], selectors)[0]
    assert found[0] == found[1] != found[2]


def test_a_proxy_s_agents_are_told_apart() -> None:
    def forwarded(agent: bytes) -> bytes:
        address = ber.element(Tag.IP_ADDRESS, agent)
        return trap_v2(LINK_DOWN, [(message.SNMP_TRAP_ADDRESS, address)])

    first, second = digests([forwarded(b"\x0a\0\0\1"), forwarded(b"\x0a\0\0\2")], SELECTED)[0]
    assert first != second
    one, two = digests([trap_v1("1.3.6", 6, 1, agent=bytes((10, 0, 0, n))) for n in (1, 2)])[0]
    assert one != two


@pytest.mark.parametrize(
    ("enterprise", "generic", "specific", "trap"),
    [
        ("1.3.6.1.4.1.9.9.187", 6, 1, "1.3.6.1.4.1.9.9.187.0.1"),
        ("1.3.6.1.4.1.9.9.187.0.1", 6, 1, "1.3.6.1.4.1.9.9.187.0.1"),  # netxms#3576
        ("1.3.6.1.4.1.9.0.300", 6, 300, "1.3.6.1.4.1.9.0.300"),
        ("1.3.6.1.4.1.9.0.300", 6, 44, "1.3.6.1.4.1.9.0.300.0.44"),  # 44 ends 300 in base 128
        ("1.3.6.1.4.1.9", 6, 70_000, "1.3.6.1.4.1.9.0.70000"),
        ("1.3.6.1.4.1.9.1.1", 2, 0, LINK_DOWN),
        ("1.3.6.1.4.1.9.1.1", 0, 5, "1.3.6.1.6.3.1.1.5.1"),
    ],
)
def test_v1_traps_are_found_by_the_kernel_under_their_v2_name(
    enterprise: str, generic: int, specific: int, trap: str
) -> None:
    assert message.trap_oid_v1(enterprise, generic, specific)[0] == trap
    selectors = make_selectors([], {trap: [(IF_INDEX, Part.WHOLE)]})
    pair = [
        trap_v1(enterprise, generic, specific, [(f"{IF_INDEX}.{n}", ber.number(n))]) for n in (1, 2)
    ]
    chosen, verdicts = digests(pair, selectors)
    assert verdicts == ["ok", "ok"]
    assert chosen[0] != chosen[1], "the trap was not found among the selectors"
    unknown, _ = digests(pair)
    assert unknown[0] == unknown[1]


def test_selectors_are_sorted_by_hash() -> None:
    made = make_selectors([], {f"1.3.6.1.{n}": [] for n in range(50)})
    assert (np.diff(made.traps.astype(object)) > 0).all()
    assert hash_bytes(ber.oid_content("1.3.6.1.7")) in made.traps.tolist()


def test_an_inform_is_answered_with_its_own_bindings() -> None:
    data = trap_v2(LINK_DOWN, [(f"{IF_INDEX}.3", ber.number(3))], request_id=99, tag=Tag.INFORM)
    answer = message.answer_inform(data, message.read_envelope(data))
    envelope = message.read_envelope(answer)
    pdu = message.read_pdu(answer, envelope.start, envelope.stop)
    asked = message.read_pdu(data, envelope.start, envelope.stop)
    assert (pdu.tag, pdu.request_id, pdu.error_status) == (Tag.RESPONSE, 99, 0)
    assert pdu.varbinds == asked.varbinds
    assert envelope.community == b"public"
