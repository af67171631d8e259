"""What both ends of every link carry in the current tick, and which exporters say nothing at all.

Read from the frames of the views `interface` and `exporter`, and only when a rule asks.
"""

from runtime.ports import Interface, NetworkMap, SeriesDirectory
from telemetry.batch import Batch

SERIES_KEPT_MAX = 100_000


class Faces:
    """The interfaces of the last frame by (router, ifIndex), and the exporters without records."""

    def __init__(self, network: NetworkMap, directory: SeriesDirectory) -> None:
        self._network = network
        self._directory = directory
        self._frame: Batch | None = None
        self._flows: dict[tuple[str, int], int] | None = None
        self._known: dict[int, tuple[str, int] | None] = {}
        self._exporters: Batch | None = None
        self._mute: set[str] | None = None

    def take(self, frame: Batch) -> None:
        """Keep a frame of this tick if it is one that the rules look at."""
        view = frame.dictionaries["view"][0]
        if view == "interface":
            self._frame, self._flows = frame, None
        elif view == "exporter":
            self._exporters, self._mute = frame, None

    def mute_routers(self) -> set[str]:
        """Return the routers of which no record came in this tick: they prove no silence."""
        if self._mute is None:
            self._mute = self._read_mute()
        return self._mute

    def flows(self, router: str, index: int) -> int | None:
        """Return the flow records seen on an interface in this tick, None = it has no series."""
        if self._flows is None:
            self._flows = self._read()
        return self._flows.get((router, index))

    def busy_far_ends(self, router: str) -> tuple[list[str], list[str]]:
        """Return the router's links whose far end carries traffic, and those where it is idle.

        What a router at a far end that says nothing itself would see is not known.
        """
        mute = self.mute_routers()
        busy: list[str] = []
        idle: list[str] = []
        for link in self._network.links_of(router):
            for end, index in link.ends:
                flows = None if end == router or end in mute else self.flows(end, index)
                if flows is not None:
                    (busy if flows else idle).append(link.name)
        return busy, idle

    def mute_neighbours(self, router: str) -> bool:
        """Return whether a router has neighbours, and none of them says anything."""
        ends = {end for link in self._network.links_of(router) for end, _ in link.ends} - {router}
        return bool(ends) and ends <= self.mute_routers()

    def _read_mute(self) -> set[str]:
        mute: set[str] = set()
        if self._exporters is not None:
            records = self._exporters["records"]
            for series_id in self._exporters["series_id"][records == 0].tolist():
                key = self._directory.key(series_id)
                if key is not None and "exporter" in key.key:
                    mute.add(self._network.router_of(key.key["exporter"]))
        return mute

    def _read(self) -> dict[tuple[str, int], int]:
        if self._frame is None:
            return {}
        if len(self._known) > SERIES_KEPT_MAX:
            self._known.clear()
        made: dict[tuple[str, int], int] = {}
        flows = self._frame["flows"].tolist()
        for place, series_id in enumerate(self._frame["series_id"].tolist()):
            if series_id not in self._known:
                self._known[series_id] = self._place(series_id)
            face = self._known[series_id]
            if face is not None:
                made[face] = made.get(face, 0) + flows[place]
        return made

    def _place(self, series_id: int) -> tuple[str, int] | None:
        key = self._directory.key(series_id)
        if key is None or "interface" not in key.key:
            return None
        router = self._network.router_of(key.key["exporter"])
        return router, int(key.key["interface"])


def face_name(face: Interface | None, router: str, index: int) -> str:
    """Return an interface's name as people call it: `ams1:et-0/0/3`."""
    return f"{router}:{face.name if face is not None and face.name else index}"
