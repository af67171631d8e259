"""What the network map is told from BMP: BGP sessions that come, last and end, and what an IGP states over them.

A session's two addresses make a link where both ends tell of one on its subnet; its key is that of all
that was stated over it (BGP-LS), so when it ends its statements grow old. All are told again each hour: what
is not told any more is gone.
"""

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collectors.bmp.alarms import peer_address
from collectors.bmp.link_state import Statement
from collectors.bmp.peers import LOC_RIB_PEER, PeerKey, Peers
from collectors.bmp.words import PeerUp, local_address
from telemetry.batch import Batch, batch_from_rows
from telemetry.identity import V4_MAPPED, address_text, stable_id
from telemetry.schemas import OPTION

AGAIN_NS = 3_600_000_000_000


class Sessions:
    """Tells of the sessions of all peers, one row of `peers` each."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers
        self._told: dict[int, dict[str, str]] = {}  # row: what its Peer Up said

    def up(self, row: int, key: PeerKey, said: PeerUp, message: bytes, now_ns: int) -> list[Batch]:
        """Tell of a session that came up."""
        told = {"peer": peer_address(key)}
        local = local_address(message)
        if key.peer_type != LOC_RIB_PEER and said.sent is not None and local:
            told["local"] = local
            told["router_id"] = address_text(0, V4_MAPPED | said.sent.identifier)
        self._told[row] = told
        return self._tell([row], "up", now_ns)

    def down(self, rows: Iterable[int], now_ns: int) -> list[Batch]:
        """Tell that sessions ended; those that nobody heard coming up have none to end."""
        known = [row for row in rows if row in self._told]
        made = self._tell(known, "down", now_ns)
        for row in known:
            del self._told[row]
        return made

    def still(self, connections: set[int], now_ns: int) -> list[Batch]:
        """Tell again of all sessions of these connections."""
        number = (self._peers.key[:, 0] >> np.uint64(8)).tolist()
        return self._tell([row for row in self._told if number[row] in connections], "", now_ns)

    def stated(
        self, row: int, rib: int, found: list[Statement], arrival_ns: int
    ) -> list[dict[str, Any]]:
        """Return rows of what an IGP states over a session."""
        session = self._key(row)
        return [
            self._row(row, "link-state", arrival_ns) | {
                "key": stable_id(f"{session} {rib} {one.key.hex()}"),
                "value": session,
                "name": json.dumps(one.fields, sort_keys=True),
            }
            for one in found
        ]  # fmt: skip

    def _tell(self, rows: list[int], state: str, now_ns: int) -> list[Batch]:
        made = []
        for row in rows:
            told = self._told[row] | ({"state": state} if state else {})
            name = json.dumps(told, sort_keys=True)
            made.append(
                self._row(row, "bgp-session", now_ns) | {"key": self._key(row), "name": name}
            )
        return [batch_from_rows(OPTION, made, source="bmp")] if made else []

    def _row(self, row: int, table: str, now_ns: int) -> dict[str, Any]:
        high, low = self._peers.router[row].tolist()
        return {
            "arrival_ns": now_ns, "exporter_address_high": high, "exporter_address_low": low,
            "table": table,
        }  # fmt: skip

    def _key(self, row: int) -> int:
        """Return a peer's number that is the same over connections."""
        key: NDArray[np.uint64] = self._peers.key[row]
        return stable_id(" ".join(str(word) for word in (int(key[0]) & 255, *key[1:].tolist())))

    # ---- checkpoints

    def state(self) -> list[Any]:
        """Return what `take` takes."""
        return [[row, told] for row, told in self._told.items()]

    def take(self, kept: list[Any]) -> None:
        """Take it back."""
        self._told = dict(kept)
