"""Failed logins that logs tell of, counted by source: brute force as its targets see it.

Lines whose event is `login-failed` (collectors/syslog/events.toml). A host's own log is no guess, so what
it says stands outside the alert budget. Counts fade with a half-life of three minutes. Blind to logs
that name no source beyond their host, and to what the device does not log.
"""

import contextlib
import ipaddress
import re
from typing import Any

import numpy as np

from alerting.causes import filters
from alerting.causes.rows import prefix_of, some
from alerting.records.alarm import Claim
from runtime.metrics import Counter
from runtime.ports import NetworkMap
from telemetry.batch import Batch

EVENT = "login-failed"
LINES_MAX = 2_000  # of one event tick that are read; more of them say nothing new
PAIRS_MAX = 10_000  # (source, host) that are counted; the longest silent is forgotten
TRIES_MIN = 30.0
HALF_LIFE_NS = 180_000_000_000
HOSTS_SHOWN = 3
# A dotted quad may have a port behind it.
_DOTTED = r"(?:\d{1,3}\.){3}\d{1,3}(?!\w|\.\d|::|:(?=\d)(?!\d{1,5}(?![\w:])))"
_ADDRESS = re.compile(
    rf"(?<![\w.:])({_DOTTED}|[0-9a-f]{{0,4}}(?::[0-9a-f]{{0,4}}){{1,6}}:{_DOTTED}"
    # Neither the colon of a sentence nor that of a service, as in `::1:ssh`, is a part of it.
    r"|[0-9a-f]{0,4}(?::[0-9a-f]{0,4}){2,7}(?<!(?<!:):)(?!\w|::|:[0-9a-f]{1,4}(?!\w)|\.\d))",
    re.I,
)
_SOURCE = re.compile(r"\b(?:from|source|host|rhost|ip|address)\b\W{0,4}" + _ADDRESS.pattern, re.I)
_PORT = re.compile(r"\blocal ?port\b\W{0,3}(\d{1,5})\b", re.I)
# sftp is a part of SSH, tftp knows no login; vsftpd is FTP.
_PROGRAMS = (
    ("vsftp", 21), ("sftp", 22), ("tftp", 0), ("ssh", 22), ("dropbear", 22), ("telnet", 23),
    ("ftp", 21),
)  # fmt: skip

# (tries left, host, source, first, port)
_Pair = tuple[float, str, str, int, int]


class FailedLogins:
    """Counts by (source, host); a source that no line names is ""."""

    def __init__(self, network: NetworkMap, left_out: Counter) -> None:
        self._network = network
        self._left_out = left_out
        # tries, last, first, port (0 = not known); the newest last
        self._tries: dict[tuple[str, str], tuple[float, int, int, int]] = {}

    def take(self, logs: Batch, now_ns: int) -> None:
        """Count the failed logins among log lines."""
        events = logs.dictionaries["event"]
        if EVENT not in events:
            return
        rows = np.flatnonzero(logs["event"] == events.index(EVENT))
        hosts, message = logs.dictionaries["host"], logs.blobs["message"]
        apps, ids = logs.dictionaries["app"], logs.dictionaries["message_id"]
        edges = logs["message"]
        self._left_out.add("failed_login_lines", max(len(rows) - LINES_MAX, 0))
        for row in rows[:LINES_MAX].tolist():
            text = message[edges[row] : edges[row + 1]].tobytes().decode("utf-8", "replace")
            host = self._network.router_of(hosts[int(logs["host"][row])])
            program = f"{apps[int(logs['app'][row])]} {ids[int(logs['message_id'][row])]}"
            self._count(source_of(text), host, port_of(program, text), now_ns)

    def _count(self, source: str, host: str, port: int, now_ns: int) -> None:
        known = self._tries.pop((source, host), (0.0, now_ns, now_ns, port))
        tries, last_ns, first_ns, known_port = known
        left = tries * 0.5 ** ((now_ns - last_ns) / HALF_LIFE_NS)
        if left < 1.0:
            first_ns = now_ns
        self._tries[source, host] = (left + 1.0, now_ns, first_ns, port or known_port)
        if len(self._tries) > PAIRS_MAX:
            del self._tries[next(iter(self._tries))]
            self._left_out.add("failed_login_sources")

    def claims(self, now_ns: int, *, tick_seconds: float, cadence: str) -> list[Claim]:
        """Return a claim for each source that fails too often, or host where unknown ones do."""
        found: dict[str, list[_Pair]] = {}
        for (source, host), (tries, last_ns, first_ns, port) in self._tries.items():
            left = tries * 0.5 ** ((now_ns - last_ns) / HALF_LIFE_NS)
            if left >= 1.0:
                found.setdefault(source or host, []).append((left, host, source, first_ns, port))
        made = []
        for entity, pairs in sorted(found.items()):
            total = sum(pair[0] for pair in pairs)
            if total >= TRIES_MIN:
                claim = self._claim(entity, sorted(pairs, key=lambda p: (-p[0], p[1])), total)
                claim.tick_seconds, claim.cadence = tick_seconds, cadence
                made.append(claim)
        return made

    def _claim(self, entity: str, pairs: list[_Pair], total: float) -> Claim:
        source = pairs[0][2]
        hosts = [host for _, host, *_ in pairs]
        ports = sorted({port for *_, port in pairs if port}) or [0]
        owner = self._network.owner_of_prefix(prefix_of(source)) if source else ""
        return Claim(
            "brute-force", entity, "major",
            f"brute force at {some(hosts)}: {total:.0f} failed logins "
            f"from {source or 'unknown sources'} within minutes",
            min(pair[3] for pair in pairs), total / TRIES_MIN, 1, total, 0.0, 0.0,
            TRIES_MIN, "{line}",
            evidence=[f"log of {host}: {tries:.0f} failed logins" for tries, host, *_ in pairs[:HOSTS_SHOWN]],
            causes=[{"kind": "brute-force", "entity": entity, "rank": 1, "why": "failed logins in logs"}],
            affects=[*dict.fromkeys(name for name in (owner, *hosts[:HOSTS_SHOWN], source) if name)],
            advice=f"look for a success in the log of {some(hosts)}; limit who may log in",
            filters=[
                rule for port in ports if source
                for rule in filters.against_logins(source, port, (), self._network)
            ],
            disposition="hard",
        )  # fmt: skip

    def snapshot(self) -> list[list[Any]]:
        """Return what `restore` takes."""
        return [[*key, *value] for key, value in self._tries.items()]

    def restore(self, kept: list[list[Any]]) -> None:
        """Take it back."""
        self._tries = {
            (source, host): (n, last, first, port[0] if port else 0)
            for source, host, n, last, first, *port in kept
        }


def source_of(message: str) -> str:
    """Return the address that a failed login came from, "" where the line names none.

    In one form, as flows have it: without port, brackets and scope, and IPv4 as it is where a socket of
    both kinds logs it mapped (RFC 4291, 2.5.5.2).

    >>> source_of("Failed password for invalid user admin from 192.0.2.7 port 51022 ssh2")
    '192.0.2.7'
    >>> source_of("Login failed [user: root] [Source: 2001:db8::7] [localport: 22] [Reason: x]")
    '2001:db8::7'
    >>> source_of("Bad password attempt for 'root' from ::ffff:192.0.2.7:51022")
    '192.0.2.7'
    """
    for pattern in (_SOURCE, _ADDRESS):
        for found in pattern.finditer(message):
            with contextlib.suppress(ValueError):
                address = ipaddress.ip_address(found.group(1))
                return str(getattr(address, "ipv4_mapped", None) or address)
    return ""


def port_of(program: str, message: str) -> int:
    """Return the port where a failed login was tried, 0 where nothing says it.

    >>> port_of("sshd", "Failed password for root from 192.0.2.7 port 51022"), port_of("login", "Login incorrect")
    (22, 0)
    >>> [port_of(name, "Login incorrect") for name in ("vsftpd", "proftpd", "sftp-server", "tftpd")]
    [21, 21, 22, 0]
    >>> port_of("SEC_LOGIN-4-LOGIN_FAILED", "[user: root] [Source: 192.0.2.7] [localport: 2222]")
    2222
    """
    if (stated := _PORT.search(message)) and 0 < int(stated.group(1)) < 65_536:
        return int(stated.group(1))
    name = program.lower()
    return next((port for part, port in _PROGRAMS if part in name), 0)
