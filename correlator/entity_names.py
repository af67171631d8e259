"""What a key of a view is called: the entity that people know."""

from correlator.keys import NAMED, is_address, key_of, key_text
from runtime.ports import NetworkMap, SeriesKey
from telemetry.identity import stable_id
from telemetry.views import View


def describe(network: NetworkMap, view: View, words: list[int], series_id: int = 0) -> SeriesKey:
    """Return what a key of a view stands for; where it has no id yet, one is made of it."""
    key = key_of(view.key, words)
    entity = _entity(network, view.name, key)
    made = series_id or stable_id(f"{view.name}|{key_text(key)}")
    return SeriesKey(made, stable_id(entity), view.name, entity, key)


def _entity(network: NetworkMap, view: str, key: dict[str, str]) -> str:
    if "exporter" in key:
        router = network.router_of(key["exporter"])
        rest = {name: value for name, value in key.items() if name != "exporter"}
        if not rest:
            return router
        if "interface" not in key:
            for part, table in NAMED.items():
                name = part in rest and network.reference(key["exporter"], table, int(rest[part]))
                rest |= {part: name} if name else {}
            return f"{router} {key_text(rest)}"
        known = network.interface(key["exporter"], int(key["interface"]))
        return f"{router}:{known.name if known and known.name else key['interface']}"
    if view == "service":
        return f"{key['protocol']}/{key['port_class']}"
    return next(iter(key.values())) if len(key) == 1 and is_address(key) else key_text(key)
