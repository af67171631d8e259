"""MRT dumps that FRR writes of a session with ExaBGP, as messages and as tables: they hold what was announced."""

import contextlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.support.routers import FRR, ExaBgp, Frr, two_namespaces, until
from tocsin.cli.decode import decode

pytestmark = pytest.mark.live
RECEIVER = """
router bgp 65002
 bgp router-id 10.99.0.2
 no bgp ebgp-requires-policy
 neighbor 10.99.0.1 remote-as 65001
 neighbor 10.99.0.1 timers 1 3
 neighbor 10.99.0.1 timers connect 1
 address-family ipv6 unicast
  neighbor 10.99.0.1 activate
 exit-address-family
exit
"""
EXABGP = """
neighbor 10.99.0.2 {
    router-id 10.99.0.1;
    local-address 10.99.0.1;
    local-as 65001;
    peer-as 65002;
    family { ipv4 unicast; ipv6 unicast; }
    static {
        route 198.51.100.0/24 next-hop 10.99.0.1 as-path [ 65001 64500 ] med 7;
        route 203.0.113.0/25 next-hop 10.99.0.1;
        route 2001:db8:7::/48 next-hop 2001:db8::1 as-path [ 65001 4200000001 ];
    }
}
"""
# prefix, next hop, origin, length of the path, MED: as `show bgp` has them too.
ROUTES = {
    ("198.51.100.0/24", "10.99.0.1", 64500, 2, 7),
    ("203.0.113.0/25", "10.99.0.1", 65001, 1, 0),
    ("2001:db8:7::/48", "2001:db8::1", 4200000001, 2, 0),
}


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the user frr can enter; the sockets in it need a short path."""
    made = Path(tempfile.mkdtemp(prefix="ts-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made, ignore_errors=True)


def routes(path: Path) -> list[dict[str, Any]]:
    """Return what `tocsin decode` makes of a dump, routes alone."""
    said = CliRunner().invoke(decode, [str(path), "-o", "jsonl"])
    rows = [json.loads(line) for line in said.stdout.splitlines()]
    return [row for row in rows if row["schema"] == "route"]


def told(rows: list[dict[str, Any]]) -> set[tuple[Any, ...]]:
    return {
        (f"{row['prefix']}/{row['prefix_length']}", row["next_hop_address"], row["origin_as"],
         row["as_path_length"], row["multi_exit_discriminator"])
        for row in rows if not row["withdrawn"]
    }  # fmt: skip


def test_what_frr_dumps_is_what_exabgp_announced(folder: Path, needs: Callable[..., None]) -> None:
    needs("ip", root=True)
    needs("vtysh", str(FRR / "bgpd"))
    with two_namespaces() as spaces, contextlib.ExitStack() as closing:
        theirs = Frr(spaces[1], folder / "b", RECEIVER)
        closing.callback(theirs.stop)
        updates, table = folder / "b" / "updates", folder / "b" / "table"
        theirs.vtysh(
            "configure terminal", f"dump bgp all-et {updates}", f"dump bgp routes-mrt {table} 1"
        )
        exabgp = ExaBgp(spaces[0], folder / "x", EXABGP)
        try:
            until(lambda: updates.exists() and told(routes(updates)) == ROUTES)
            until(lambda: table.exists() and told(routes(table)) == ROUTES)
            entries = routes(table)
        finally:
            exabgp.stop()
        until(lambda: routes(updates)[-1]["withdrawn"] == 2)  # the session ended
    assert {row["peer_address"] for row in entries} == {"10.99.0.1"}
    assert {row["exporter_address"] for row in entries} == {"10.99.0.2"}
    assert {row["peer_as"] for row in entries} == {65001}
