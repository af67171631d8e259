"""Foreign alarms under the names of the network map: `ams1:et-0/0/5` where a trap came from 127.1.0.10.

The one place for it, whatever the collector or source: so they meet our own alarms of the same resource.
"""

import re
from functools import lru_cache

from runtime.ports import NetworkMap
from telemetry.batch import Batch, text_column
from telemetry.identity import stable_id

SEPARATORS_MAX = 10  # between a device and its resource; an IPv6 address holds some
_SEPARATOR = re.compile(r"[:/ ]")
_INDEX = re.compile(r"(?:interface )?(\d{1,10})")  # as mappings call an interface without a name


def name_alarms(batch: Batch, network: NetworkMap) -> Batch:
    """Return a batch of alarms with entities and titles by name; ids stay as their source made them."""
    entities = batch.texts("entity")
    renamed = {one: entity_name(one, network) for one in set(entities)}
    if all(old == new for old, new in renamed.items()):
        return batch
    titles = batch.texts("specific_problem")
    for i, entity in enumerate(entities):
        if renamed[entity] != entity:
            titles[i] = _in_words(titles[i], entity, renamed[entity], network)
    columns, blobs = dict(batch.columns), dict(batch.blobs)
    made = [renamed[entity] for entity in entities]
    columns["entity"], blobs["entity"] = text_column(made)
    columns["specific_problem"], blobs["specific_problem"] = text_column(titles)
    columns["entity_id"] = columns["entity_id"].copy()
    for i, (old, new) in enumerate(zip(entities, made, strict=True)):
        if old != new:
            columns["entity_id"][i] = stable_id(new)
    return Batch(
        batch.schema, columns, blobs, batch.dictionaries,
        batch.source, batch.arrival_ns, batch.frontier_ns,
    )  # fmt: skip


def entity_name(entity: str, network: NetworkMap) -> str:
    """Return what the network map calls a managed object: its device, and an interface by number."""
    device, rest = _parts(entity, network)
    router = network.router_of(device)
    number = _INDEX.fullmatch(rest[1:]) if rest else None
    face = network.interface(device, int(number[1])) if number else None
    if face is not None and face.name:
        return f"{router}:{face.name}"
    return router + rest


def _parts(entity: str, network: NetworkMap) -> tuple[str, str]:
    """Return (device, what of it, with its separator); the first device that the map knows."""
    if network.router_of(entity) != entity:
        return entity, ""
    first = ("", "")
    for count, found in enumerate(_SEPARATOR.finditer(entity)):
        device, rest = entity[: found.start()], entity[found.start() :]
        if network.router_of(device) != device:
            return device, rest
        first = first if count else (device, rest)
        if count == SEPARATORS_MAX:
            break
    return first if first[0] else (entity, "")


def _in_words(title: str, entity: str, name: str, network: NetworkMap) -> str:
    device, _ = _parts(entity, network)
    title = title.replace(entity, name)
    return _word(device).sub(lambda _: network.router_of(device), title)


@lru_cache(4096)
def _word(text: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w.:]){re.escape(text)}(?![\w.])")
