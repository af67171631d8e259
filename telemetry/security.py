"""What the rooms must agree on of security: ports of amplifiers and logins, and the views that look.

Facts, no rules: which service answers with more than it was asked, where people log in.
"""

# UDP source ports of answers that are larger than their questions. Source: US-CERT TA14-017A, and
# the reports of WS-Discovery (2019), ARMS (2019), DVR DHCPDiscover (2020).
AMPLIFIERS = {
    17: "QOTD", 19: "chargen", 53: "DNS", 69: "TFTP", 111: "portmap", 123: "NTP", 137: "NetBIOS",
    161: "SNMP", 389: "CLDAP", 520: "RIP", 1900: "SSDP", 3283: "ARMS", 3702: "WS-Discovery",
    5353: "mDNS", 5683: "CoAP", 10001: "Ubiquiti discovery", 11211: "memcached",
    37810: "DVR DHCPDiscover",
}  # fmt: skip
LOGIN_PORTS = {
    21: "FTP", 22: "SSH", 23: "Telnet", 2222: "SSH", 2323: "Telnet", 3389: "RDP", 5900: "VNC",
    5901: "VNC",
}  # fmt: skip
# Destination ports of small flows that are regular by nature.
ROUTINE_PORTS = (
    22,
    23,
    53,
    67,
    68,
    123,
    161,
    162,
    179,
    514,
    646,
    2055,
    3784,
    4739,
    5353,
    6343,
    6514,
)
# Flows in one tick from which on a key of a view of security gets a row: a quarter of what a scan is asked
# for, half of an upload's, two where tries add up. Who stays below is nobody's busy one.
FLOWS_MIN = {"probe": 13, "slow_probe": 6, "login": 2, "upload": 3}
# Findings of the security detectors, as anomaly rows name them.
FINDINGS = (
    "host_scan", "slow_scan", "login_tries", "dns_tunnel", "upload", "flood", "bogon",
    "lone_sources", "beacon", "failed_logins",
)  # fmt: skip
