"""Every capture of syslog: against the goldens of napalm-logs and telegraf, tshark, and facts.

Facts: napalm-logs and telegraf state host, program, ids, severity, text and time of each message.
Where ours differ, the table below says why. tshark 4.0's counts by (severity, facility) are below.
"""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from collectors.capture.reader import read_capture
from collectors.capture.report import CaptureReport
from collectors.capture.tcp import TcpStreams
from collectors.datagram import blocks
from tests.support.decoding import decoded
from tests.support.syslog_messages import ARRIVAL_NS, SECOND, block, make_syslog
from tocsin.testing.rows import rows_of

# What napalm-logs says otherwise than we do, and is not held against either.
DIFFERENT = {
    # It takes the process of OSPF for the process id, and leaves it out of the text.
    "ios/OSPF_NEIGHBOR_DOWN": {"message", "process_id"},
    "ios/OSPF_NEIGHBOR_UP": {"message", "process_id"},
    # `JPRDS_NH:jprds_nh_alloc()` is no tag: no blank stands behind its colon.
    "junos/NH_REGION_GRAB_FAILED": {"message", "tag"},
    # `Alarm set` is text to us; the event says what it is.
    "junos/SYSTEM_ALARM": {"message", "tag"},
    "junos/SYSTEM_ALARM_CLEARED": {"message", "tag"},
}
# What napalm-logs calls a message, and the event that we take it for.
EVENTS = {
    "BFD_STATE_CHANGE": {"bfd-session-down", "bfd-session-up"},
    "BGP_NEIGHBOR_STATE_CHANGED": {"bgp-peer-down", "bgp-peer-up"},
    "BGP_PREFIX_LIMIT_EXCEEDED": {"bgp-prefix-limit"},
    "BGP_PREFIX_THRESH_EXCEEDED": {"bgp-prefix-limit"},
    "CONFIGURATION_COMMIT_COMPLETED": {"config-change"},
    "INTERFACE_DOWN": {"link-down", "link-admin-down"},
    "INTERFACE_UP": {"link-up"},
    "INTERFACE_MAC_LIMIT_REACHED": {"mac-limit"},
    "ISIS_NEIGHBOR_DOWN": {"isis-adjacency-down"},
    "ISIS_NEIGHBOR_UP": {"isis-adjacency-up"},
    "LACP_INTERFACE_DOWN": {"bundle-member-down"},
    "MAINTENANCE_MODE_ENDED": {"maintenance-mode"},
    "MAINTENANCE_MODE_STARTED": {"maintenance-mode"},
    "MAJOR_ALARM_CLEARED": {"equipment-clear"},
    "MAJOR_ALARM_SET": {"equipment-alarm"},
    "MINOR_ALARM_CLEARED": {"equipment-clear"},
    "MINOR_ALARM_SET": {"equipment-alarm"},
    "NTP_SERVER_UNREACHABLE": {"clock-unsynchronised"},
    "OSPF_NEIGHBOR_DOWN": {"ospf-neighbor-down"},
    "OSPF_NEIGHBOR_UP": {"ospf-neighbor-up", ""},  # Init to 2Way is not up
    "PROCESS_RESTART": {"process-failed"},
    "PROCESS_TERMINATED": {"process-failed"},
    "STP_BLOCK_BPDUGUARD": {"port-blocked"},
    "SYSTEM_ALARM": {"equipment-alarm"},
    "SYSTEM_ALARM_CLEARED": {"equipment-clear"},
    "USER_EXIT_CONFIG_MODE": {"config-change"},
    "USER_WRITE_CONFIG": {"config-change"},
    "USER_ENTER_CONFIG_MODE": {"config-session"},
}
RAISED = {"link-down", "bgp-peer-down", "isis-adjacency-down", "ospf-neighbor-down", "bfd-session-down",
          "bundle-member-down", "equipment-alarm"}  # fmt: skip
CLEARED = {"link-up", "link-admin-down", "bgp-peer-up", "isis-adjacency-up", "ospf-neighbor-up",
           "bfd-session-up", "equipment-clear"}  # fmt: skip


def napalm(shared: Path) -> list[tuple[str, bytes, dict[str, Any]]]:
    folder = shared / "captures" / "syslog" / "napalm-logs"
    found = []
    for path in sorted(folder.glob("*/*/*/syslog.msg")):
        golden = json.loads((path.parent / "yang.json").read_text("utf-8"))
        name = f"{path.parts[-4]}/{path.parts[-3]}"
        found.append((name, path.read_bytes(), golden))
    return found


def test_napalm_logs(shared: Path) -> None:
    """84 messages of EOS, IOS, IOS-XR, Junos, NX-OS and opengear."""
    messages = napalm(shared)
    assert len(messages) == 84
    for name, data, golden in messages:
        details = golden["message_details"]
        stamp = golden["timestamp"]  # some are milliseconds of the day the test was written
        arrival_ns = (stamp // 1000 if stamp > 1e11 else stamp) * SECOND
        decoder, _ = make_syslog(clock="exported")
        made = decoder.decode(block(data, arrival_ns=arrival_ns))
        (row,) = rows_of(made, "log")
        assert row["facility"] * 8 + row["severity"] == int(details["pri"]), name
        assert row["host"] == details["host"], name
        different = DIFFERENT.get(name, set())
        if "tag" not in different:
            assert details["tag"] in (row["message_id"], row["app"]), name
        if "message" not in different:
            assert row["message"] == details["message"].removeprefix(": "), name
        if details.get("processName"):
            assert row["app"] == details["processName"], name
        if details.get("processId") and "process_id" not in different:
            assert row["process_id"] == details["processId"], name
        assert row["event"] in EVENTS.get(golden["error"], {""}), name
        alarms = rows_of(made, "alarm")
        assert [a["state"] for a in alarms] == (
            ["raised"] if row["event"] in RAISED
            else ["cleared"] if row["event"] in CLEARED else []
        ), name  # fmt: skip


def test_napalm_times(shared: Path) -> None:
    """Each golden time that the message itself states is ours, in the zone it states."""
    checked = 0
    for name, data, golden in napalm(shared):
        details, stamp = golden["message_details"], golden["timestamp"]
        decoder, _ = make_syslog(clock="exported")
        (row,) = rows_of(decoder.decode(block(data, arrival_ns=min(stamp, 2**31) * SECOND)), "log")
        of_day = re.match(r"(\d+):(\d+):(\d+)", details["time"])
        assert of_day is not None
        hour, minute, second = map(int, of_day.groups())
        zone = 120 if "MEST" in data.decode() else 0
        expected = (hour * 60 + minute - zone) % 1440 * 60 + second
        assert row["time_ns"] // SECOND % 86_400 == expected, name
        checked += 1
    assert checked == 84


def test_what_is_raised_is_cleared(shared: Path) -> None:
    """The up of a pair has the alarm id of its down: same host, object and kind."""
    state: dict[int, list[str]] = {}
    for _, data, _ in napalm(shared):
        decoder, _ = make_syslog()
        for alarm in rows_of(decoder.decode(block(data)), "alarm"):
            state.setdefault(alarm["alarm_id"], []).append(alarm["state"])
    pairs = [states for states in state.values() if set(states) == {"raised", "cleared"}]
    # BFD and BGP on EOS, IOS and Junos links, Ethernet1/33 on NX-OS, IS-IS on EOS, OSPF on IOS and
    # Junos, the fan and /var of Junos' alarmd, me0 and /var of its craftd.
    assert len(pairs) >= 10


def influx(text: str) -> list[dict[str, Any]]:
    """Return telegraf's expected lines as dictionaries: tags and fields."""
    found = []
    # A field's text may hold a line end: a record ends with its time.
    for line in re.findall(r"syslog,(?:[^\n\"]|\"(?:[^\"\\]|\\.)*\")*", text, re.DOTALL):
        tags, _, fields = line.partition(" ")
        row: dict[str, Any] = dict(tag.split("=", 1) for tag in tags.split(",")[1:])
        for key, text_value, number in re.findall(
            r'([\w ]+)=(?:"((?:[^"\\]|\\.)*)"|(\w+))', fields, re.DOTALL
        ):
            value = re.sub(r"\\(.)", lambda one: {"n": "\n"}.get(one[1], one[1]), text_value)
            row[key.strip()] = int(number.rstrip("iu")) if number and number != "true" else value
        found.append(row)
    return found


TELEGRAF = {
    # The appname is longer than RFC 5424 allows: telegraf leaves it out, we keep it.
    "rfc5424_best_effort_toolong_appname": {"appname", "message", "msgid"},
}
# Strict telegraf refuses these, best effort takes the same bytes; we take them.
REFUSED = {"rfc5424_strict_toolong_appname", "rfc5424_strict_udp_min_incomplete"}


def test_telegraf(shared: Path) -> None:
    folder = shared / "captures" / "syslog" / "telegraf"
    cases = sorted(path for path in folder.iterdir() if path.is_dir())
    assert len(cases) == 30
    for case in cases:
        datagrams = 'server = "udp' in (case / "telegraf.conf").read_text("utf-8")
        decoder, _ = make_syslog("udp://[::]:1" if datagrams else "tcp://[::]:1", clock="exported")
        data = (case / "input.txt").read_bytes()
        found = rows_of(decoder.decode(block(data, *([] if datagrams else [b""]))), "log")
        if case.name in REFUSED:
            assert len(found) == 1
            continue
        expected = influx((case / "expected.out").read_text("utf-8"))
        if case.name == "octet_counting_best_effort_tcp_1st_underflow_malfunction":
            # The count ends within a message that is none: telegraf takes 217 for a version and drops the
            # rest, to us both parts are text.
            assert [row["message"] for row in found] == ["217 <11>1 - -", "- - - -"]
            assert (found[0]["facility"], found[0]["severity"]) == (0, 1)
            continue
        assert len(found) == len(expected), case.name
        for row, want in zip(found, expected, strict=True):
            said = {
                "facility_code": row["facility"],
                "severity_code": row["severity"],
                "appname": row["app"],
                "hostname": row["host"] if row["host"] != "192.0.2.1" else "",
                "procid": row["process_id"],
                "msgid": row["message_id"],
                "message": row["message"],
            }
            for key, value in said.items():
                if key not in TELEGRAF.get(case.name, set()):
                    assert value == want.get(key, ""), (case.name, key)
            if "timestamp" in want:
                assert row["time_ns"] == want["timestamp"]
            for key, value in want.items():
                if key.startswith("meta_"):
                    assert f'{key.removeprefix("meta_")}="{value}"' in row["structured_data"]


def decode_capture(path: Path, listen: str = "udp://[::]:1") -> list[dict[str, Any]]:
    decoder, _ = make_syslog(listen)
    wanted = listen.startswith("tcp")
    parts = (d for d in read_capture(path, CaptureReport(), TcpStreams() if wanted else None)
             if d.stream == wanted and d.destination_port in (514, 11000, 16000))  # fmt: skip
    return rows_of([batch for part in blocks(parts) for batch in decoder.decode(part)], "log")


# tshark -T fields -e syslog.level -e syslog.facility | sort | uniq -c
QFX = {
    (0, 1): 1, (0, 20): 1, (3, 20): 18, (3, 3): 9, (3, 5): 1, (4, 0): 7, (4, 23): 1, (4, 3): 7,
    (5, 0): 2, (5, 12): 1, (5, 23): 2, (5, 3): 16, (5, 4): 10, (6, 1): 2, (6, 14): 2, (6, 20): 4,
    (6, 22): 1, (6, 23): 79, (6, 3): 41, (6, 4): 88, (6, 9): 3, (7, 0): 72, (7, 20): 8, (7, 3): 17,
}  # fmt: skip
NDPI = {
    (2, 3): 2, (3, 18): 2, (3, 23): 3, (5, 1): 1, (5, 16): 6, (5, 23): 15, (5, 5): 4, (6, 0): 4,
    (6, 1): 1, (6, 16): 16, (6, 23): 7, (6, 3): 22,
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("open-nti/test_syslog_qfx_01/syslog_qfx_01_16000.pcap", QFX),
        ("ndpi/syslog.pcap", NDPI),
    ],
)
def test_captures_against_tshark(
    shared: Path, name: str, expected: dict[tuple[int, int], int]
) -> None:
    found = decode_capture(shared / "captures" / "syslog" / name)
    counts = Counter((row["severity"], row["facility"]) for row in found)
    assert counts == expected


def test_a_qfx_is_one_host_with_programs_and_times(shared: Path) -> None:
    path = shared / "captures/syslog/open-nti/test_syslog_qfx_01/syslog_qfx_01_16000.pcap"
    found = decode_capture(path)
    assert {row["host"] for row in found} == {"qfx5100-02"}
    # 20 s of May, in the zone that its clock is off by: believed, and told as whole hours.
    assert all(abs(row["time_ns"] - row["arrival_ns"]) < 300 * SECOND for row in found)
    assert any(row["time_ns"] != row["arrival_ns"] for row in found)
    programs = {row["app"] for row in found}
    assert {"mgd", "/kernel", "snmpd", "/usr/sbin/cron"} <= programs
    assert "last" not in programs
    assert sum(row["event"] == "login-failed" for row in found) > 0


def test_tcpdump(shared: Path) -> None:
    """tcpdump's own reading of the four: syslog-v.out."""
    path = shared / "captures" / "syslog" / "tcpdump" / "syslog_udp.pcap"
    found = decode_capture(path)
    assert [(row["facility"], row["severity"], row["host"], row["message"]) for row in found] == [
        (0, 5, "through", "test message 21"),
        (1, 1, "through", "test message 22"),
        (1, 5, "localhost", "through rsyslog: test message 23"),
        (1, 1, "localhost", "through rsyslog: test message 24"),
    ]


def test_zeek(shared: Path) -> None:
    folder = shared / "captures" / "syslog" / "zeek"
    counted = decode_capture(folder / "tcp-syslog.pcap", "tcp://[::]:1")
    assert [(row["severity"], row["message"]) for row in counted] == [
        (5, "'su root' failed"), (6, "'su root' failed"), (7, "'su bob' failed"), (0, "'su bob' failed"),
    ]  # fmt: skip
    lines = decode_capture(folder / "tcp-syslog-nontransparent.pcap", "tcp://[::]:1")
    assert [row["severity"] for row in lines] == [6, 0]
    (hello,) = decode_capture(folder / "syslog-single-udp.pcap")
    assert (hello["app"], hello["message"]) == ("robin", "Hello, syslog!")
    (bare,) = decode_capture(folder / "syslog-missing-pri.pcap")
    assert bare["message"] == "This is not really a syslog message #173538 1552584410.781186"
    assert (bare["facility"], bare["severity"], bare["app"]) == (1, 5, "")


@pytest.mark.parametrize(
    ("name", "messages"),
    [
        # By rsyslog's own tests: a message begins with `<` and a digit; `<test/>` is none.
        ("imptcp_framing_regex.testdata", 9),
        ("imptcp_framing_regex-oversize.testdata", 9),
        ("imtcp-multiline.testdata", 2),
    ],
)
def test_rsyslog_multi_line(shared: Path, name: str, messages: int) -> None:
    data = (shared / "captures" / "syslog" / "rsyslog" / name).read_bytes()
    decoder, context = make_syslog("tcp://[::]:1", multi_line=True, message_bytes_max=600)
    found = rows_of(decoder.decode(block(data, b"")), "log")
    assert len(found) == messages
    assert all(row["facility"] in (4, 16) for row in found)
    cut = context.metrics.value("collector_syslog_frames_total", frame="cut")
    assert cut == (1 if "oversize" in name else 0)


def test_rsyslog_others(shared: Path) -> None:
    folder = shared / "captures" / "syslog" / "rsyslog"
    decoder, _ = make_syslog()
    (row,) = rows_of(decoder.decode(block((folder / "date_time_msg").read_bytes())), "log")
    assert (row["host"], row["message_id"]) == ("172.20.245.8", "PIX-7-710005")
    decoder, _ = make_syslog("tcp://[::]:1", clock="exported")
    windows = (folder / "mmsnareparse" / "sample-events.data").read_bytes()
    found = rows_of(decoder.decode(block(windows, b"")), "log")
    assert [row["host"] for row in found] == re.findall(r"Z (\S+) - - - -", windows.decode())
    assert all(row["message"].startswith("MSWinEventLog\t1\t") for row in found)


def test_ossec(shared: Path) -> None:
    """Lines of hosts and firewalls without priority: host and program where there is a time."""
    folder = shared / "captures" / "syslog" / "ossec"
    checked = 0
    for path in sorted(folder.glob("*.ini")):
        for line in re.findall(r"^log \d+ (?:pass|fail)\s*= (.*)$", path.read_text("utf-8"), re.M):
            decoder, _ = make_syslog()
            (row,) = rows_of(decoder.decode(block(line)), "log")
            head = re.match(
                r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d (\S+[^:\s]) ([\w./()-]+?)(?:\[\d+\])?: ",
                line,
            )
            if head is not None:
                assert (row["host"], row["app"]) == head.groups(), line
                checked += 1
            if vendor := re.search(r"%%?((?:ASA|PIX|IPS|SEC)-\d-\w+)", line):
                assert row["message_id"] == vendor[1], line
                checked += 1
    assert checked == 68


def test_decode_finds_it_on_any_port(shared: Path) -> None:
    """The QFX logs to port 16000: told by the priority that each datagram begins with."""
    path = shared / "captures/syslog/open-nti/test_syslog_qfx_01/syslog_qfx_01_16000.pcap"
    found, _ = decoded(path)
    assert sum(row["schema"] == "log" for row in found) == 393


def test_no_capture_is_left_out(shared: Path) -> None:
    """Every file of the folder is read by a test above."""
    folder = shared / "captures" / "syslog"
    assert {path.name for path in folder.iterdir()} == {
        "napalm-logs", "ndpi", "open-nti", "ossec", "rsyslog", "tcpdump", "telegraf", "zeek",
    }  # fmt: skip
    assert ARRIVAL_NS
