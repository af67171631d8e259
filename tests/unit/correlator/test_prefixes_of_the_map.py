"""Whose an address is: the smallest prefix of the network file that holds it."""

import ipaddress

import numpy as np
import pytest

from correlator.tables.network_map import FileNetworkMap, NetworkFile, PrefixEntry

PREFIXES = (
    "10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.3/32", "0.0.0.0/0", "2001:db8::/32", "2001:db8:1::/48",
)  # fmt: skip


@pytest.fixture
def known() -> FileNetworkMap:
    entries = [PrefixEntry(prefix=p, router="r", customer=p) for p in PREFIXES]
    again = PrefixEntry(prefix="10.1.0.0/16", router="r", customer="the second of this name")
    return FileNetworkMap(NetworkFile(prefix=[*entries, again]))


def by_trying(text: str) -> str:
    wanted = ipaddress.ip_network(text, strict=False)
    found = [ipaddress.ip_network(p) for p in PREFIXES]
    fits = [n for n in found if n.version == wanted.version and wanted.subnet_of(n)]  # type: ignore[arg-type]
    return str(max(fits, key=lambda n: n.prefixlen)) if fits else ""


def test_it_is_the_one_that_trying_each_finds(known: FileNetworkMap) -> None:
    random = np.random.default_rng(1)
    texts = [
        "10.1.2.3",
        "10.1.2.3/31",
        "10.1.2.0/24",
        "10.1.0.0/15",
        "2001:db8:1::/47",
        "2001:db8:1::5",
        "::/0",
    ]
    texts += [f"10.{a}.{b}.{c}/{d}" for a, b, c, d in random.integers(0, [3, 4, 5, 33], (200, 4))]
    assert [known.owner_of_prefix(text) for text in texts] == [by_trying(text) for text in texts]


@pytest.mark.parametrize(
    "text", ["", "ams1", "10.1.2", "10.1.2.3/33", "10.1.2.3/", "10.1.2.3/-1", "10.1.2.3/ 8", "\0"]
)
def test_what_is_no_address_belongs_to_nobody(known: FileNetworkMap, text: str) -> None:
    assert known.owner_of_prefix(text) == ""
