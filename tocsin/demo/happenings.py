"""What happens to the demo carrier beside its traffic: links and their sessions go down, people log in.

One list of happenings is told by every voice (`syslog_lines`, `snmp_speaker`, `bmp_speaker`,
`alarm_list`), so that what they say is consistent with the faults that the flows show.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tocsin.demo.network import DemoNetwork
from tocsin.demo.traffic import Fault

SECOND = 1_000_000_000
UP_AGAIN_NS = 2 * SECOND  # a line that is mended needs so long before its sessions are back
CHATTER_PER_ROUTER_SECOND = 0.3
TRIES_PER_SECOND = 5
ROUTINE = ("login", "logout", "keepalive", "ntp", "cron", "commit")
_ROUTINE_WEIGHTS = (0.2, 0.2, 0.25, 0.15, 0.1995, 0.0005)


@dataclass(frozen=True, slots=True)
class Happening:
    """One thing that one router has to say, at one time."""

    time_ns: int
    router: str
    kind: str  # "link", "session", "failed-login", or one of ROUTINE
    up: bool = True
    link: str = ""
    interface: str = ""  # of `router`, at its end of the link
    index: int = 0  # its ifIndex
    peer: str = ""  # the router at the other end; of a failed login who tries


class Happenings:
    """Everything that happens, in order of time, for any span: the same seed tells the same."""

    def __init__(self, network: DemoNetwork, faults: Sequence[Fault], *, seed: int) -> None:
        self._network = network
        self._seed = seed
        self._links = {link.name: link for link in network.file.link}
        self._names = {(face.router, face.index): face.name for face in network.file.interface}
        self._faults = [*self._of_faults(faults)]

    def between(self, start_ns: int, end_ns: int) -> list[Happening]:
        """Return what happens in [start, end), a whole number of seconds long, in order of time."""
        found = [one for one in self._faults if start_ns <= one.time_ns < end_ns]
        for second in range(start_ns // SECOND, end_ns // SECOND):
            found += self._routine(second)
        return sorted(found, key=lambda one: (one.time_ns, one.router, one.kind))

    def _of_faults(self, faults: Iterable[Fault]) -> Iterable[Happening]:
        for fault in faults:
            if fault.kind == "brute-force":
                # The attacker's own router is among those that he tries.
                step = SECOND // TRIES_PER_SECOND
                for at_ns in range(fault.start_ns, fault.end_ns, step):
                    yield Happening(at_ns, fault.affects[-1], "failed-login", peer=fault.entity)
            if fault.kind != "link-cut":
                continue
            for at_ns, up in ((fault.start_ns, False), (fault.end_ns, True)):
                later_ns = UP_AGAIN_NS if up else SECOND // 10
                for number, (router, index, peer) in enumerate(self._ends(fault.entity)):
                    name = self._names[router, index]
                    first_ns = at_ns + (number + 1) * 40_000_000  # both ends, one after the other
                    for kind, when_ns in (("link", first_ns), ("session", first_ns + later_ns)):
                        yield Happening(when_ns, router, kind, up, fault.entity, name, index, peer)

    def _ends(self, link: str) -> tuple[tuple[str, int, str], tuple[str, int, str]]:
        entry = self._links[link]
        return (entry.a, entry.a_index, entry.b), (entry.b, entry.b_index, entry.a)

    def _routine(self, second: int) -> Iterable[Happening]:
        random = np.random.default_rng((self._seed, second))
        for router in self._network.names:
            for _ in range(int(random.poisson(CHATTER_PER_ROUTER_SECOND))):
                at_ns = second * SECOND + int(random.integers(SECOND))
                kind = ROUTINE[int(random.choice(len(ROUTINE), p=_ROUTINE_WEIGHTS))]
                yield Happening(at_ns, router, kind)
