"""Heads of log messages: every dialect, and what is missing from them."""

from typing import Any

import pytest

from tests.support.syslog_messages import ARRIVAL_NS, SECOND, decode

HOUR = 3600 * SECOND


def head(message: bytes | str, **options: Any) -> tuple[Any, ...]:
    """Return (severity, host, app, process id, message id, message) of one message."""
    (row,) = decode(message, **options)
    return tuple(
        row[name] for name in ("severity", "host", "app", "process_id", "message_id", "message")
    )


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        pytest.param(
            "<34>Oct 11 22:14:15 mymachine su: 'su root' failed for lonvick on /dev/pts/8",
            (2, "mymachine", "su", "", "", "'su root' failed for lonvick on /dev/pts/8"),
            id="RFC 3164 section 5.4 example 1",
        ),
        pytest.param(
            "<165>Aug 24 05:34:00 CST 1987 mymachine myproc[10]: %% It's time to make the do-nuts.",
            (5, "mymachine", "myproc", "10", "", "%% It's time to make the do-nuts."),
            id="RFC 3164 section 5.4 example 3",
        ),
        pytest.param(
            "<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - \ufeff'su root' failed",
            (2, "mymachine.example.com", "su", "", "ID47", "'su root' failed"),
            id="RFC 5424 section 6.5 example 1",
        ),
        pytest.param(
            "<165>1 2003-08-24T05:14:15.000003-07:00 192.0.2.1 myproc 8710 - - %% It's time",
            (5, "192.0.2.1", "myproc", "8710", "", "%% It's time"),
            id="RFC 5424 section 6.5 example 2",
        ),
        pytest.param("<1>1 - - - - - -", (1, "192.0.2.1", "", "", "", ""), id="RFC 5424, all nil"),
        pytest.param(
            "<189>521: router1: *Nov 14 08:30:56.699: %LINK-5-CHANGED: Interface Gi2, changed",
            (5, "router1", "LINK", "", "LINK-5-CHANGED", "Interface Gi2, changed"),
            id="IOS, unsynchronised clock",
        ),
        pytest.param(
            "<189>30: *Mar  1 00:01:02.123: %SYS-5-CONFIG_I: Configured",
            (5, "192.0.2.1", "SYS", "", "SYS-5-CONFIG_I", "Configured"),
            id="IOS without a host",
        ),
        pytest.param(
            "<189>1234: .Jun  1 12:50:26.172 EDT: %LINEPROTO-5-UPDOWN: Line protocol",
            (5, "192.0.2.1", "LINEPROTO", "", "LINEPROTO-5-UPDOWN", "Line protocol"),
            id="IOS, a clock that lost its source",
        ),
        pytest.param(
            "<189>29: 1w2d: %LINK-3-UPDOWN: Interface Gi0/1, changed state to down",
            (5, "192.0.2.1", "LINK", "", "LINK-3-UPDOWN", "Interface Gi0/1, changed state to down"),
            id="IOS with uptime for a time",
        ),
        pytest.param(
            "<189>29: 00:01:02: %LINK-3-UPDOWN: x",
            (5, "192.0.2.1", "LINK", "", "LINK-3-UPDOWN", "x"),
            id="IOS with a young uptime",
        ),
        pytest.param(
            "<190>40: RP/0/RP0/CPU0:Oct  4 22:52:47.441 : cfg[67310]: %MGBL-CONFIG-6-DB_COMMIT : Text",
            (6, "192.0.2.1", "cfg", "67310", "MGBL-CONFIG-6-DB_COMMIT", "Text"),
            id="IOS-XR without a host",
        ),
        pytest.param(
            "<190>: 2020 Apr  1 09:46:57 CET: %ETHPORT-5-IF_UP: Interface Ethernet1/1 is up",
            (6, "192.0.2.1", "ETHPORT", "", "ETHPORT-5-IF_UP", "Interface Ethernet1/1 is up"),
            id="NX-OS, year first, no host",
        ),
        pytest.param(
            "<189>1 2023-05-01T10:00:00Z iosxe - - - - %SYS-5-CONFIG_I: Configured",
            (5, "iosxe", "", "", "SYS-5-CONFIG_I", "Configured"),
            id="IOS-XE in RFC 5424",
        ),
        pytest.param(
            "<28>1 2026-09-21T14:13:20Z mx mib2d 7 SNMP_TRAP_LINK_UP - SNMP_TRAP_LINK_UP: ifIndex 5",
            (4, "mx", "mib2d", "7", "SNMP_TRAP_LINK_UP", "ifIndex 5"),
            id="RFC 5424, the id said again in the text",
        ),
        pytest.param(
            "<167>Mar  6 16:57:54 172.20.245.8 %PIX-7-710005: at Thu",
            (7, "172.20.245.8", "PIX", "", "PIX-7-710005", "at Thu"),
            id="PIX",
        ),
        pytest.param(
            "%%ASA-6-308001: Console enable",
            (6, "192.0.2.1", "ASA", "", "ASA-6-308001", "Console enable"),
            id="ASA without priority: severity from the id",
        ),
        pytest.param(
            "<28>Sep 21 14:13:20  re1.vmx01 rpd[2902]: RPD_OSPF_NBRUP: OSPF neighbor 1.1.1.1",
            (4, "vmx01", "rpd", "2902", "RPD_OSPF_NBRUP", "OSPF neighbor 1.1.1.1"),
            id="Junos, name of the routing engine taken off",
        ),
        pytest.param(
            "<14>Dec 13 13:12:00 srx RT_FLOW: RT_FLOW_SESSION_CLOSE: session closed",
            (6, "srx", "RT_FLOW", "", "RT_FLOW_SESSION_CLOSE", "session closed"),
            id="Junos, the program in capitals",
        ),
        pytest.param(
            "<7>Dec 10 00:00:01  re0.edge01 fpc3 fpc3 dcpfe: nothing left",
            (7, "edge01", "dcpfe", "", "", "nothing left"),
            id="Junos, line cards",
        ),
        pytest.param(
            "<188>Oct 21 2021 03:15:42+08:00 CORE-1 %%01IFNET/4/LINK_STATE(l)[12]:The line",
            (4, "CORE-1", "IFNET", "", "IFNET/4/LINK_STATE", "The line"),
            id="Huawei VRP",
        ),
        pytest.param(
            "<188>Oct 21 03:15:42 2021 CORE-1 %%10IFNET/3/LINK_UPDOWN: GE1/0/1 link status is DOWN.",
            (4, "CORE-1", "IFNET", "", "IFNET/3/LINK_UPDOWN", "GE1/0/1 link status is DOWN."),
            id="H3C Comware, the year behind the time",
        ),
        pytest.param(
            "<188>Jun  1 09:00:00 10.1.1.1 TMNX: 1234 Base SNMP-WARNING-linkDown-2004 [Port 1/1/1]:  down",
            (4, "10.1.1.1", "TMNX", "", "SNMP-WARNING-linkDown-2004", "[Port 1/1/1]:  down"),
            id="Nokia SR OS",
        ),
        pytest.param(
            "<13>2020-03-31T08:41:59+00:00 sw1 Bgp: %BGP-5-ADJCHANGE: peer 192.0.2.2",
            (5, "sw1", "Bgp", "", "BGP-5-ADJCHANGE", "peer 192.0.2.2"),
            id="EOS with RFC 3339 time",
        ),
        pytest.param(
            "<30>ztp-ts port02 2018-Nov- 9 15:42:06.972 SIGNAL: CTS => 0",
            (6, "ztp-ts", "port02", "", "SIGNAL", "CTS => 0"),
            id="opengear, the time third",
        ),
        pytest.param(
            "<133>Msg 1", (5, "192.0.2.1", "", "", "", "Msg 1"), id="the first word is no host"
        ),
        pytest.param(
            "<13>Apr  5 12:56:51 robin: Hello", (5, "192.0.2.1", "robin", "", "", "Hello"),
            id="no host, only a program",
        ),
        pytest.param(
            "<13>Dec  5 10:00:00 host [error] foo", (5, "host", "", "", "", "[error] foo"),
            id="a text that begins with a bracket",
        ),
        pytest.param(
            "<7>May 20 18:08:57 qfx last message repeated 70 times",
            (7, "qfx", "", "", "", "last message repeated 70 times"),
            id="no program",
        ),
        pytest.param(
            "<13>Dec  5 10:00:00 alone", (5, "192.0.2.1", "", "", "", "alone"),
            id="one word is the text",
        ),
        pytest.param("no head at all", (5, "192.0.2.1", "", "", "", "no head at all"), id="bare"),
        pytest.param(
            "<192>x y", (5, "192.0.2.1", "", "", "", "<192>x y"), id="priority beyond 191"
        ),
        pytest.param(
            "<13>Sep 21 14:13:20 2001:db8::7 sshd[12]: t",
            (5, "2001:db8::7", "sshd", "12", "", "t"),
            id="an IPv6 address that begins like a year",
        ),
        pytest.param(
            "<13>Sep 21 14:13:20 fe80::1%eth0 sshd[12]: t",
            (5, "fe80::1%eth0", "sshd", "12", "", "t"),
            id="an IPv6 address with its interface",
        ),
        pytest.param(
            "<13>Mon Sep 21 14:13:20 2026 host app: t", (5, "host", "app", "", "", "t"),
            id="the day of the week first",
        ),
        pytest.param(
            "<189>12345: r1: 001234: Sep 21 14:13:20.123 CEST: %SYS-5-CONFIG_I: Configured",
            (5, "r1", "SYS", "", "SYS-5-CONFIG_I", "Configured"),
            id="IOS, a sequence number on both sides of the host",
        ),
        pytest.param(
            "<187>Sep 21 14:13:20 eos1 Ebra[1234]: 345: %LINEPROTO-5-UPDOWN: down",
            (3, "eos1", "Ebra", "1234", "LINEPROTO-5-UPDOWN", "down"),
            id="EOS with sequence numbers",
        ),
        pytest.param(
            "<188>2026-9-21 14:13:20 S5700 %%01SHELL/5/CMDRECORD(s)[0]:Recorded",
            (4, "S5700", "SHELL", "", "SHELL/5/CMDRECORD", "Recorded"),
            id="VRP with a month of one digit",
        ),
        pytest.param(
            "<134>1 1790000000.123456789 mx84 urls src=192.0.2.7",
            (6, "mx84", "", "", "", "urls src=192.0.2.7"), id="Meraki, seconds since 1970",
        ),
        pytest.param(
            "<165>1 2026-09-21t14:13:20z h a - - - t", (5, "h", "a", "", "", "t"),
            id="RFC 3339 in small letters",
        ),
        pytest.param(
            b"\xef\xbb\xbf<13>Sep 21 14:13:20 h a: t", (5, "h", "a", "", "", "t"),
            id="byte order mark",
        ),
    ],
)  # fmt: skip
def test_dialects(message: bytes | str, expected: tuple[Any, ...]) -> None:
    assert head(message) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(b"Gr\xc3\xbc\xc3\x9fe", "Grüße", id="UTF-8"),
        pytest.param(b"Gr\xfc\xdfe", "Grüße", id="ISO 8859-1"),
        pytest.param(b"\xe2\x82", "â\x82", id="a sequence cut off"),
        pytest.param(b"\xc0\x80 \xed\xa0\x80", "À\x80 í\xa0\x80", id="overlong and surrogate"),
        pytest.param(b"a\0b\x1b[31mc\x7f.", "a b [31mc .", id="control characters"),
        pytest.param(b"a\nb\tc", "a\nb\tc", id="line end and tab stay"),
    ],
)
def test_encodings(text: bytes, expected: str) -> None:
    (row,) = decode(b"<13>Sep 21 14:13:20 host app: " + text)
    assert row["message"] == expected


def test_structured_data_is_kept_with_its_escapes() -> None:
    data = r'[a@1 k="v\"]\\" l=""][b]'
    (row,) = decode(f"<165>1 2026-09-21T14:13:20Z h a 1 ID {data} text")
    assert (row["structured_data"], row["message"]) == (data, "text")


def test_broken_structured_data_is_text() -> None:
    (row,) = decode('<165>1 2026-09-21T14:13:20Z h a 1 ID [x k="v" text')
    assert (row["structured_data"], row["message"]) == ("", '[x k="v" text')


@pytest.mark.parametrize(
    ("stamp", "offset_ns"),
    [
        pytest.param("Sep 21 14:13:20", 0, id="no year"),
        pytest.param("Sep 21 2026 14:13:20", 0, id="year"),
        pytest.param("2026 Sep 21 14:13:20.250", SECOND // 4, id="fraction"),
        pytest.param("2026-09-21T16:13:20+02:00", 0, id="zone"),
        pytest.param("2026-09-21T09:13:20.000000001-0500", 1, id="zone without colon, ns"),
        pytest.param("2026-09-21 14:13:20,5", SECOND // 2, id="comma"),
        pytest.param("2026/09/21 14:13:20", 0, id="slashes"),
        pytest.param("Sep 21 16:13:20 CEST", 0, id="named zone"),
        pytest.param("Sep 21 14:13:50", 30 * SECOND, id="half a minute fast is believed"),
        pytest.param("Sep 21 16:13:21", SECOND, id="two hours ahead: another zone"),
        pytest.param("Sep 21 19:43:20", 0, id="five hours and a half ahead"),
        pytest.param("Sep 21 14:28:20", 0, id="a quarter of an hour off: arrival"),
        pytest.param("Jan  1 00:00:20", 0, id="a clock that began anew: arrival"),
        pytest.param("2026-13-21T14:13:20Z", 0, id="no such month: arrival"),
        pytest.param("2026-02-30T14:13:20Z", 0, id="no such day: arrival"),
        pytest.param("Sep 21 24:13:20", 0, id="no such hour: arrival"),
    ],
)
def test_times(stamp: str, offset_ns: int) -> None:
    (row,) = decode(f"<13>{stamp} host app: text")
    assert row["time_ns"] - ARRIVAL_NS == offset_ns
    assert (row["host"], row["app"], row["message"]) == ("host", "app", "text")


@pytest.mark.parametrize(
    ("arrival", "stamp"),
    [
        pytest.param(1_798_761_605, "Dec 31 23:59:58", id="late over New Year"),
        pytest.param(1_798_761_595, "Jan  1 00:00:03", id="early over New Year"),
    ],
)
def test_the_year_that_is_not_said_goes_over_new_year(arrival: int, stamp: str) -> None:
    """2027-01-01T00:00:00Z is 1798761600."""
    (row,) = decode(f"<13>{stamp} host app: text", arrival_ns=arrival * SECOND)
    assert abs(row["time_ns"] - arrival * SECOND) <= 8 * SECOND
    assert row["time_ns"] != arrival * SECOND


def test_decode_takes_times_as_they_stand() -> None:
    (row,) = decode("<13>2001-09-09T01:46:40Z host app: text", clock="exported")
    assert row["time_ns"] == 1_000_000_000 * SECOND


def test_seconds_since_1970_are_a_time() -> None:
    (row,) = decode("<134>1 1790000000.123456789 mx84 urls src=192.0.2.7", clock="exported")
    assert row["time_ns"] == ARRIVAL_NS + 123_456_789


def test_lines_of_a_file_are_of_the_past() -> None:
    """A line of October read in September is eleven months old, not one ahead."""
    (row,) = decode("<13>Oct 11 22:14:15 host app: text", clock="exported")
    assert row["time_ns"] == 1_760_220_855 * SECOND  # 2025-10-11T22:14:15Z
