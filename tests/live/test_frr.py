"""FRRouting tells us by BMP of its peer: routes, withdrawals, resets, the end of the session."""

from collections.abc import Callable, Iterator

import pytest

from tests.support.bmp_messages import make_decoder
from tests.support.frr import (
    AS_B,
    BGPD,
    HERE,
    PEER_B,
    PREFIXES,
    PREFIXES6,
    BmpPeer,
    FrrPair,
    frr_pair,
    server,
)
from tocsin.testing.rows import rows_of

pytestmark = [pytest.mark.live, pytest.mark.timeout(300)]
PRE, POST = 0, 1


@pytest.fixture(scope="module")
def pair() -> Iterator[FrrPair]:
    """Two routers, not started yet."""
    with frr_pair() as made:
        yield made


def test_a_peer_of_frr(needs: Callable[..., None], request: pytest.FixtureRequest) -> None:
    """One session from its start to its end: what FRR says and what we make of it agree."""
    needs("ip", "vtysh", str(BGPD), root=True)
    pair: FrrPair = request.getfixturevalue("pair")
    decoder = make_decoder()
    listening = server()
    pair.start(listening.getsockname()[1])
    peer = BmpPeer(listening, decoder)
    value = decoder.metrics.value  # type: ignore[attr-defined]
    try:
        # The whole table, in both tables of routes; FRR monitors IPv6 before policy only.
        every = {*PREFIXES, *PREFIXES6}
        peer.hear(lambda: peer.live(PRE) == every and peer.live(POST) == set(PREFIXES))
        routes = [row for row in peer.rows("route") if not row["withdrawn"]]
        assert {(row["origin_as"], row["peer_as"]) for row in routes} == {(AS_B, AS_B)}
        # FRR 8 writes its own AS in front.
        assert {row["as_path_length"] for row in routes} <= {
            1,
            2,
        }
        assert {row["change"] for row in routes} == {1}
        # A route goes and comes back.
        pair.configure(pair.b, "address-family ipv4 unicast", f"no network {PREFIXES[0]}")
        rest = set(PREFIXES[1:])
        peer.hear(lambda: peer.live(POST) == rest and peer.live(PRE) == every - {PREFIXES[0]})
        pair.configure(pair.b, "address-family ipv4 unicast", f"network {PREFIXES[0]}")
        peer.hear(lambda: peer.live(POST) == set(PREFIXES) and peer.live(PRE) == every)
        # The session is reset: one alarm, all routes end, all come again.
        before = len(peer.rows("alarm"))
        pair.tell(pair.b, "clear bgp *")
        peer.hear(lambda: len(peer.rows("alarm")) >= before + 2)
        raised, cleared = peer.rows("alarm")[before:][:2]
        assert raised["entity"] == f"a1:{PEER_B}"
        assert "peer closed the session: cease" in raised["specific_problem"]
        assert (raised["state"], cleared["state"]) == ("raised", "cleared")
        assert raised["alarm_id"] == cleared["alarm_id"]
        peer.hear(lambda: peer.live(POST) == set(PREFIXES) and peer.live(PRE) == every)
        # Shut down by hand, with a word: who, why, and that someone wanted it.
        before = len(peer.rows("alarm"))
        pair.configure(pair.b, "neighbor 10.255.2.1 shutdown message new line card")
        peer.hear(lambda: len(peer.rows("alarm")) > before)
        last = peer.rows("alarm")[-1]
        assert 'administrative shutdown ("new line card")' in last["specific_problem"]
        assert (last["severity"], peer.live(PRE)) == ("minor", set())
        # Statistics come each second; everything was understood.
        peer.hear(lambda: value("collector_bmp_messages_total", type="statistics") >= 2)
        assert value("collector_bmp_skipped_bytes_total") == 0
        assert value("collector_bmp_updates_total", verdict="malformed") == 0
        assert value("collector_bmp_updates_total", verdict="treated_as_withdraw") == 0
        (ledger,) = rows_of(decoder.advance(peer.batches[-1].arrival_ns + 1), "ledger")
        assert ledger["sent"] == ledger["decoded"] > 10
        # The router takes its connection away, and comes back.
        connect = f"bmp connect {HERE} port {pair.port} min-retry 100 max-retry 500"
        pair.configure(pair.a, "bmp targets here", f"no {connect}")
        while peer.read():
            pass
        assert peer.rows("alarm")[-1]["kind"] == "bmpSessionDown"
        pair.configure(pair.a, "bmp targets here", connect)
        peer.reconnect()
        peer.hear(lambda: ("bmpSessionDown", "cleared") in _alarms(peer))
    finally:
        peer.close()


def _alarms(peer: BmpPeer) -> set[tuple[str, str]]:
    return {(row["kind"], row["state"]) for row in peer.rows("alarm")}
