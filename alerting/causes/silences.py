"""Cause rules of silence: a router of which nothing comes any more, a link that carries nothing.

A link is called cut when every end that we see shows nothing in either direction. A neighbour of a
cut link may fall silent too, for a few ticks, because what it carried has another way now: that is
no cut, so a link that falls silent beside a larger one has to miss ten times as many records first. So may
a link that stood in for a cut one, once that carries again: as long as it knows nothing else, of a day
before the cut, that is no cut either.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from alerting.causes.faces import Faces, face_name
from alerting.causes.rows import Row, silent_for, some
from alerting.records.alarm import Alarm, Claim
from alerting.words.amounts import amount
from runtime.ports import Link, NetworkMap

BESIDE_NS = 60_000_000_000  # links that fall silent so close together may have one cause
BESIDE_RECORDS_MIN = 240.0  # that a link must miss which fell silent beside a larger one
YOUNG_S = 86_400.0  # a baseline that knows no whole day


@dataclass(frozen=True, slots=True)
class SilentLink:
    """A link of which every end that we see shows nothing, with the findings that say so."""

    link: Link
    rows: list[Row]

    @property
    def since_ns(self) -> int:
        """When it fell silent."""
        return min(row.since_ns for row in self.rows)

    @property
    def expected(self) -> float:
        """What its busiest direction should carry, in flows/s."""
        return max(row.expected for row in self.rows)

    @property
    def missed(self) -> float:
        """How many records should have come of its busiest direction meanwhile."""
        ticks = (float(row.detail.get("ticks", 0)) for row in self.rows)
        due = (row.expected * row.tick_seconds for row in self.rows)
        return max(a * b for a, b in zip(due, ticks, strict=True))

    @property
    def is_young(self) -> bool:
        """Whether what it should carry was learned in less than a day."""
        return all(row.detail.get("baseline_s", YOUNG_S) < YOUNG_S for row in self.rows)

    def is_beside(self, other: "SilentLink") -> bool:
        """Whether it fell silent about when a larger one did."""
        larger = (other.expected, other.link.name) > (self.expected, self.link.name)
        return larger and abs(other.since_ns - self.since_ns) <= BESIDE_NS


class SilenceRules:
    """Tells routers that are down or export nothing from links that carry nothing."""

    def __init__(self, network: NetworkMap, faces: Faces) -> None:
        self._network = network
        self._faces = faces

    def router(self, row: Row) -> str:
        """Return the router that exported what a row is about, "" where it is about no exporter."""
        exporter = row.key.key.get("exporter", "")
        return self._network.router_of(exporter) if exporter else ""

    def exporters_down(self, rows: Sequence[Row]) -> list[Claim]:
        """Return the routers of which nothing comes any more."""
        return [self._exporter_down(row) for row in rows if row.detector == "exporter_silent"]

    def _exporter_down(self, row: Row) -> Claim:
        router = row.key.entity
        long, usual = silent_for(row), amount(row.expected, "{record}/s")
        busy, idle = self._faces.busy_far_ends(router)
        evidence = [f"{usual} expected, none for {long}"]
        if busy:
            evidence.append(
                f"the far ends of {len(busy)} of its links still carry traffic: {some(busy)}"
            )
            why, what = "all its streams fell silent, its neighbours still see it forward", "silent"
        elif idle:
            evidence.append(f"no far end of its links that is seen carries traffic: {some(idle)}")
            why, what = "it exports nothing and its neighbours see nothing from it", "down"
        else:
            if self._faces.mute_neighbours(router):
                evidence.append("the routers at the far ends of its links export nothing either")
            why, what = "all its streams fell silent at once", "silent"
        faces = len(self._network.links_of(router))
        return Claim(
            "exporter-down", router, "critical" if what == "down" else "major",
            f"exporter {router} is {what}: no record for {long}, {usual} expected",
            row.since_ns, row.score, 1, row.actual, row.expected, row.lower, row.upper,
            "{record}/s",
            evidence=evidence,
            causes=[{"kind": "exporter-down", "entity": router, "rank": 1, "why": why}],
            affects=[router, f"{faces} link{'s are' if faces != 1 else ' is'} not seen from its side"],
            advice=(
                f"{router} itself seems down: check power, console, and who reaches it"
                if what == "down"
                else f"reach {router}; check its flow export and the path to this collector"
            ),
            series=[f"{row.key.series_id:016x}"],
            disposition="hard",
        )  # fmt: skip

    def links_cut(
        self, rows: Sequence[Row], dark: set[str], alarm_of: Callable[[str, str], Alarm | None]
    ) -> list[Claim]:
        """Return the links that are cut; `dark` are routers of which nothing comes any more.

        `alarm_of` returns the alarm of a kind on an entity.
        """
        if not any(row.detector == "silence" for row in rows):
            return []
        # Of an exporter that sends nothing at all (it is down, its path is, or its templates are
        # not here yet after a restart) no interface proves anything.
        blind = dark | self._faces.mute_routers()
        findings, risen = self._by_link([row for row in rows if self.router(row) not in blind])
        gone = self._gone(blind)
        silent = []
        for name, found in sorted(findings.items()):
            link = self._network.link(name)
            # With the router at one end down, that is the fault, not its links.
            if link is not None and not gone & {router for router, _ in link.ends}:
                ends = {router for router, _ in link.ends} - blind
                if ends and all(self._shows_nothing(link, end, found) for end in sorted(ends)):
                    silent.append(SilentLink(link, found))
        cut = [
            one
            for one in silent
            if one.missed >= BESIDE_RECORDS_MIN or not any(one.is_beside(other) for other in silent)
        ]
        back = {link.name for one in cut for link in self._near(one)} - set(findings)
        shown_ns = [alarm.last_ns for name in sorted(back) if (alarm := alarm_of("link-cut", name))]
        cut = [one for one in cut if not (one.is_young and _stood_in(one, shown_ns))]
        carriers = {name: gained for name, gained in risen.items() if name not in findings}
        return [self._link_cut(one, carriers) for one in cut]

    def _near(self, one: SilentLink) -> list[Link]:
        """Return the links for which a link may stand in: of its routers, and of their neighbours."""
        ends = {router for router, _ in one.link.ends}
        ends |= {r for end in ends for link in self._network.links_of(end) for r, _ in link.ends}
        return [link for end in sorted(ends) for link in self._network.links_of(end)]

    def _by_link(self, rows: Sequence[Row]) -> tuple[dict[str, list[Row]], dict[str, float]]:
        """Return the silences of each link, and by how much each link that rose did, in octets/s."""
        silent: dict[str, list[Row]] = {}
        risen: dict[str, float] = {}
        for row in rows:
            if row.view != "interface":
                continue
            face = self._network.interface(row.key.key["exporter"], int(row.key.key["interface"]))
            if face is None or not face.link:
                continue
            if row.detector == "silence":
                silent.setdefault(face.link, []).append(row)
            elif row.actual > row.expected:
                gained = row.actual - row.expected if row.measure == "octets" else 0.0
                risen[face.link] = max(risen.get(face.link, 0.0), gained)
        return silent, risen

    def _gone(self, blind: set[str]) -> set[str]:
        """Return the routers that nobody sees forward any more."""
        gone = set()
        for router in sorted(blind):
            busy, idle = self._faces.busy_far_ends(router)
            if idle and not busy:
                gone.add(router)
        return gone

    def _shows_nothing(self, link: Link, router: str, found: Sequence[Row]) -> bool:
        """Whether one end of a link carries nothing, in and out: one way alone is no cut."""
        flows = [self._faces.flows(end, index) for end, index in link.ends if end == router]
        if any(flows):
            return False
        return 0 in flows or any(self.router(row) == router for row in found)

    def _link_cut(self, cut: SilentLink, carriers: dict[str, float]) -> Claim:
        link, own = cut.link, cut.rows
        carried = f": {len(carriers)} links carry its traffic" if carriers else ""
        if len(carriers) == 1:
            carried = f": {next(iter(carriers))} carries its traffic"
        evidence = [
            f"{row.key.entity} {row.key.key['direction']}: no flow for {silent_for(row)}, "
            f"{amount(row.expected, '{flow}/s')} expected"
            for row in own
        ]
        most = sorted(carriers, key=lambda name: (-carriers[name], name))
        if most:
            links = "another link" if len(most) == 1 else f"{len(most)} other links"
            most_of_all = f", most {some(most)}" if len(most) > 1 else f": {most[0]}"
            evidence.append(f"{links} rose at the same time{most_of_all}")
        return Claim(
            "link-cut", link.name, "major" if carriers else "critical",
            f"link {link.name} is down{carried}",
            cut.since_ns, max(row.score for row in own), 1, 0.0,
            sum(row.expected for row in own if row.key.key["direction"] == "out"), 0.0, 0.0,
            "{flow}/s",
            evidence=evidence,
            causes=[
                {"kind": "link-cut", "entity": link.name, "rank": 1,
                 "why": "every end that we see fell silent, the routers themselves did not"},
            ],
            affects=[
                face_name(self._network.interface(router, index), router, index)
                for router, index in link.ends
            ],
            advice=f"check the line and optics of {link.name}; see planned works of its carrier",
            series=[f"{row.key.series_id:016x}" for row in own],
            disposition="hard",
        )  # fmt: skip


def _stood_in(one: SilentLink, shown_ns: Sequence[int]) -> bool:
    """Whether a link fell silent when another one near it was last shown as cut, and carries since."""
    within_ns = max(BESIDE_NS, round(3e9 * one.rows[0].tick_seconds))
    return any(abs(one.since_ns - ns) <= within_ns for ns in shown_ns)
