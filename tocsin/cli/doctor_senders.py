"""`tocsin doctor [exporter ADDR]`: what each sender does wrong, and the router's lines that mend it."""

from collections.abc import Iterable, Iterator, Mapping

from tocsin.senders import SenderStatus

SECOND = 1_000_000_000
SILENT_SECONDS = 900.0
QUIET = {"syslog": 86_400.0, "snmp-trap": 7 * 86_400.0}  # who may have nothing to say for so long
OFFSET_NS = 5 * SECOND
SHARE = 0.01  # of what was sent: lost, undecodable, shed
UNPARSED = 0.2
LISTED_MAX = 20  # senders without a fault, where all are asked for
Finding = tuple[bool, str]

CLOCK_LINES = {
    "IOS-XR": "ntp server 192.0.2.123; service timestamps log datetime localtime msec show-timezone year",
    "Junos": "set system ntp server 192.0.2.123; set system syslog time-format year millisecond",
    "SR OS": "/configure system time ntp server 192.0.2.123; /configure system time ntp admin-state enable",
    "VRP": "ntp-service unicast-server 192.0.2.123; info-center timestamp log format-date",
    "EOS": "ntp server 192.0.2.123; logging format timestamp traditional year timezone",
}
TEMPLATE_LINES = {
    "IOS-XR": "flow exporter-map X; version v9; template data timeout 60; options interface-table timeout 60",
    "Junos": "set services flow-monitoring version9 template X template-refresh-rate seconds 60",
    "SR OS": "/configure cflowd collector 192.0.2.10:2055 version 9 template-set basic",
    "VRP": "ip netstream export template timeout-rate 1",
    "EOS": "flow tracking hardware; exporter X; template interval 60000",
}
SYSLOG_LINES = {
    "IOS-XR": "logging 192.0.2.10 severity info port 5514; logging hostnameprefix NAME",
    "Junos": "set system syslog host 192.0.2.10 any info port 5514 structured-data",
    "SR OS": '/configure log syslog "tocsin" address 192.0.2.10 port 5514 severity info',
    "VRP": "info-center loghost 192.0.2.10 port 5514 level informational",
    "EOS": "logging host 192.0.2.10 5514; logging format hostname fqdn",
}


def findings(
    senders: Iterable[SenderStatus],
    *,
    now_ns: int,
    unparsed: Mapping[str, int],
    only: str = "",
) -> Iterator[Finding]:
    """Yield a line for each sender, those with a fault first; `only` one address: with all that is known."""
    made = [_of(one, now_ns, unparsed.get(one.address, 0)) for one in senders]
    made = sorted(made, key=lambda one: one[0])
    good = 0
    for well, text, lines in made:
        good += well
        if not only and well and good > LISTED_MAX:
            continue
        yield well, text
        if only or not well:
            for system, words in lines.items():
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


def _of(one: SenderStatus, now_ns: int, unparsed: int) -> tuple[bool, str, Mapping[str, str]]:
    """Return whether a sender is well, what there is to say, and lines for its configuration."""
    silent = max(0.0, (now_ns - one.last_ns) / SECOND)
    parts = [f"{one.records} records, the last {silent:.0f} s ago, {one.rate:.1f} a second"]
    faults: list[str] = []
    lines: Mapping[str, str] = {}
    sent = max(one.sent, 1)
    if one.clock_offset_ns:
        parts.append(f"clock {one.clock_offset_ns / SECOND:+.1f} s")
    for count, words, fix in (
        (
            one.lost_wire,
            "lost on the way",
            "look at the path, at its export rate limit, at policers",
        ),
        (one.lost_kernel, "lost in our socket", "raise receive_buffer_bytes and net.core.rmem_max"),
        (one.shed, "shed by policy", _MORE.get(one.protocol, "raise datagrams_per_second_max")),
        (one.malformed, "malformed", "save a capture and look with tocsin decode --explain"),
        (one.undecodable - one.malformed - one.no_template, "not decodable", "see the counters"),
    ):
        if count > 0:
            parts.append(f"{count} {words} ({count / sent:.1%})")
            if count > SHARE * sent:
                faults.append(fix)
    if one.no_template > 0:
        parts.append(f"{one.no_template} wait for a template")
        if one.no_template > SHARE * sent:
            faults.append("let it send its templates each minute")
            lines = TEMPLATE_LINES
    if one.protocol == "syslog" and unparsed:
        parts.append(f"{unparsed} lines are plain text ({unparsed / max(one.records, 1):.0%})")
        if unparsed > UNPARSED * one.records:
            faults.append("let it send RFC 5424, or priority, time and host")
            lines = SYSLOG_LINES
    if abs(one.clock_offset_ns) > OFFSET_NS:
        whole = round(one.clock_offset_ns / (1800 * SECOND)) / 2
        zone = f", {whole:+.1f} h: a time zone that it does not state" if whole else ""
        faults.append(f"set its clock by NTP{zone}")
        lines = CLOCK_LINES
    if silent > QUIET.get(one.protocol, SILENT_SECONDS):
        faults.append("it is silent: is it up, and does it still send here?")
    text = f"{one.address} {one.protocol}: {', '.join(parts)}"
    if faults:
        text += ": " + "; ".join(faults)
    return not faults, text, lines or (SYSLOG_LINES if one.protocol == "syslog" else {})


_MORE = {"syslog": "raise lines_per_second_max, or let it log less: debug is shed first"}
