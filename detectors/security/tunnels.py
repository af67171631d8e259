"""DNS tunnels: a host whose questions are long, many, and all for one resolver.

An ordinary question has 60 to 90 octets with its headers; one that carries data fills its name (RFC
1035: 255 octets). The view holds long questions alone. A resolver asks many servers, a forwarder asks
short questions, so neither is one.
Blind to tunnels of less than a question every few seconds, and to those in DoH or DoT.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.detector import Finding
from detectors.security.detector import finding
from detectors.security.usual import Usual, seconds, values
from runtime.checkpoint import read_array, write_array
from runtime.registry import Part
from telemetry.batch import Batch

FLOWS_MIN = 20.0  # a minute
OVER = 4.0  # times the most of the host, and of its like
YOUNG_FACTOR = 4.0  # over the floor, while it is not known how many long questions are usual
OVER_SIZE = 1.1  # times what all hosts' long questions have
TARGETS_MAX = 4.0
TARGET_SHARE_MAX = 0.2  # of the flows: each has its own source port, the resolver is one


class TunnelDetector:
    """Finds hosts with many long questions for few resolvers."""

    name, view = "dns_tunnel", "query"

    def __init__(self) -> None:
        self._flows, self._packets = Usual(self.view), Usual(self.view)
        self._size = np.zeros(1)  # octets of a question, as usual

    @property
    def warm(self) -> bool:
        """Whether it knows what is usual; until then, many times the floor."""
        return self._flows.warm

    def find(self, frame: Batch) -> list[Finding]:
        """Return the hosts that tunnel."""
        flows, packets = values(frame, "flows"), values(frame, "packets")
        octets, targets = values(frame, "octets"), values(frame, "distinct_destination")
        size = octets / np.maximum(packets, 1.0)
        own = self._flows.own(frame)
        floor = max(FLOWS_MIN * seconds(frame) / 60.0, 10.0) * (1.0 if self.warm else YOUNG_FACTOR)
        limit = np.maximum(np.maximum(OVER * own, OVER * self._flows.busy(frame, flows)), floor)
        # One flow may hold many questions. Packets are an estimate: one sampled packet is a hundred, so
        # they count only where it is known what the busy ask.
        busy = self._packets.busy(frame, packets)
        most = np.maximum(OVER * np.maximum(self._packets.own(frame), busy), 4.0 * floor)
        many = (flows >= limit) | (self.warm & (busy > 0.0) & (packets >= most))
        long = size >= OVER_SIZE * self._size[0]
        hit = many & long & (targets <= np.maximum(TARGETS_MAX, TARGET_SHARE_MAX * flows))
        return [
            finding(
                self, i, "flows", actual=flows[i], expected=own[i], limit=limit[i],
                detail={"questions": flows[i], "packets": packets[i], "octets": octets[i],
                        "octets_per_question": size[i], "usual_octets": self._size[0],
                        "resolvers": targets[i]},
            )
            for i in np.flatnonzero(hit).tolist()
        ]  # fmt: skip

    def learn(self, frame: Batch, calm: NDArray[np.bool_], *, every: bool = False) -> None:
        """Learn how many questions are usual, and how long."""
        packets = values(frame, "packets")
        self._flows.learn(frame, values(frame, "flows"), calm, every=every)
        self._packets.learn(frame, packets, calm, every=every)
        used = calm & (packets > 0)
        if used.sum() >= 20:
            now = float(np.median(values(frame, "octets")[used] / packets[used]))
            self._size += (now - self._size) * (0.02 if self._size[0] else 1.0)

    def snapshot(self, out: Any) -> None:
        """Write what is usual."""
        self._flows.snapshot(out.scoped("flows"))
        self._packets.snapshot(out.scoped("packets"))
        write_array(out, "size", self._size)

    def restore(self, state: Any) -> None:
        """Take it back."""
        self._flows.restore(state.scoped("flows"))
        self._packets.restore(state.scoped("packets"))
        size = read_array(state, "size")
        if size is not None:
            self._size = np.array(size)


DETECTOR = Part("DNS tunnels", TunnelDetector)
