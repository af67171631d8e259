"""Topologies of others: network files, edge lists, matrices, JSON, GraphML; the content tells which."""

import io
import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collectors.foreign_text import xml_of
from correlator.tables.network_map import (
    FileNetworkMap,
    LinkEntry,
    NetworkFile,
    RouterEntry,
    load_network,
)
from telemetry.errors import ConfigError
from tocsin.files.rows import UNREADABLE, bytes_of, document_of

# What the ends of an edge may be called, in the header of a list or as keys of JSON.
ENDS = (
    ("source", "target"), ("a", "b"), ("from", "to"), ("src", "dst"), ("node1", "node2"), ("node_a", "node_b"),
    ("nodea", "nodeb"), ("device_a", "device_b"), ("a_node", "b_node"), ("a_end", "z_end"), ("local", "remote"),
    ("source_node", "target_node"), ("src_device", "dst_device"), ("start", "end"), ("u", "v"),
    ("from_node", "to_node"), ("parent", "child"), ("node", "neighbor"), ("device", "neighbor"),
    ("endpoint1", "endpoint2"),
)  # fmt: skip
NAMES = ("id", "name", "label", "node", "device", "hostname")
LISTS = ("links", "edges", "connections", "topology")
_PARTS = re.compile(r"[,;\t|]")
Pairs = list[tuple[str, str]]


def read_topology(path: Path) -> FileNetworkMap:
    """Return the network of a topology file, or raise ConfigError that says what is wrong with it."""
    if path.suffix == ".toml":
        return load_network(path)
    try:
        with bytes_of(path) as file:
            head = file.read(64)
        if head.startswith(b"\x93NUMPY") or path.suffix == ".npz":
            return network_of(*_of_matrix(_matrix(path)))
        text = document_of(path)
        first = text.lstrip()[:1]
        if first == "<":
            return network_of(*_of_graphml(text))
        if first in ("{", "["):
            return network_of(*_of_json(json.loads(text)))
        return network_of(*_of_lines(text))
    except (*UNREADABLE, IndexError) as error:
        raise ConfigError(f"{path}: {error}") from error


def _matrix(path: Path) -> NDArray[Any]:
    with bytes_of(path) as file:
        found = np.load(io.BytesIO(file.read()))
    return np.asarray(found if isinstance(found, np.ndarray) else found[found.files[0]])


def _of_matrix(matrix: NDArray[Any]) -> tuple[Pairs, list[str]]:
    if matrix.ndim == 2 and matrix.shape[1] == 2 and matrix.shape[0] != 2:
        pairs = [(str(a), str(b)) for a, b in matrix.tolist()]
        return pairs, []
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"a matrix of {matrix.shape}, must be square")
    found = {(min(a, b), max(a, b)) for a, b in np.argwhere(matrix).tolist() if a != b}
    return [(str(a), str(b)) for a, b in sorted(found)], [str(node) for node in range(len(matrix))]


def _of_lines(text: str) -> tuple[Pairs, list[str]]:
    """Return the edges of a list with or without a header, or of a matrix of numbers as text."""
    lines = [line.strip() for line in text.splitlines()]
    rows = [
        [cell.strip().strip('"') for cell in (_PARTS.split(line) if _PARTS.search(line) else line.split())]
        for line in lines
        if line and not line.startswith("#")
    ]  # fmt: skip
    if not rows:
        raise ValueError("it is empty")
    if len(rows) > 2 and all(len(row) == len(rows) for row in rows) and _is_numbers(rows):
        return _of_matrix(np.array(rows, np.float64))
    places = _ends_of([name.lower().replace(" ", "_") for name in rows[0]])
    if places and any({rows[0][place] for place in places} & set(row) for row in rows[1:]):
        places = None  # these are nodes that are called so
    body = rows[1:] if places else rows
    a, b = places or (0, 1)
    short = next((row for row in body if len(row) <= max(a, b)), None)
    if short is not None:
        raise ValueError(f"each line must name two nodes, not {short}")
    return [(row[a], row[b]) for row in body], []


def _is_numbers(rows: list[list[str]]) -> bool:
    try:
        np.array(rows, np.float64)
    except ValueError:
        return False
    return True


def _ends_of(names: list[str]) -> tuple[int, int] | None:
    found = next((pair for pair in ENDS if pair[0] in names and pair[1] in names), None)
    return (names.index(found[0]), names.index(found[1])) if found else None


def _of_json(tree: Any) -> tuple[Pairs, list[str]]:
    """Return the edges of a list of pairs, of node-link JSON, or of neighbours by node."""
    if isinstance(tree, dict):
        lists = [tree[name] for name in LISTS if isinstance(tree.get(name), list)]
        if lists:
            nodes = [_name(node) for node in tree.get("nodes") or ()]
            pairs = [_edge(one) for one in lists[0]]
            if nodes and not set(nodes) & {end for pair in pairs for end in pair}:
                pairs = [(nodes[int(a)], nodes[int(b)]) for a, b in pairs]  # places in the list
            return pairs, nodes
        around = {name: beside for name, beside in tree.items() if isinstance(beside, dict | list)}
        joined = {(min(a, str(b)), max(a, str(b))) for a, beside in around.items() for b in beside}
        return sorted(joined), list(around)
    if (
        tree
        and all(isinstance(row, list) and len(row) == len(tree) for row in tree)
        and len(tree) > 2
    ):
        return _of_matrix(np.array(tree, np.float64))
    return [_edge(one) for one in tree], []


def _edge(one: Any) -> tuple[str, str]:
    if isinstance(one, list) and len(one) >= 2:
        return _name(one[0]), _name(one[1])
    if isinstance(one, dict):
        keys = {name.lower().replace(" ", "_"): name for name in one}
        places = _ends_of(list(keys))
        if places:
            names = list(keys.values())
            return _name(one[names[places[0]]]), _name(one[names[places[1]]])
    raise ValueError(f"{json.dumps(one)[:80]} names no two nodes; write {{source: a, target: b}}")


def _name(node: Any) -> str:
    if isinstance(node, dict):
        return next((str(node[key]) for key in NAMES if key in node), "")
    return str(node)


def _of_graphml(text: str) -> tuple[Pairs, list[str]]:
    root = xml_of(text.encode())
    labels = {key.get("id"): key.get("attr.name") for key in root.iter("key")}
    names: dict[str, str] = {}
    taken: set[str] = set()
    for node in root.iter("node"):
        number = node.get("id") or ""
        label = next(
            (data.text for data in node if labels.get(data.get("key")) == "label" and data.text),
            node.get("label", ""),
        )
        name = str(label or number).strip().replace(" ", "_")
        names[number] = name if name not in taken else f"{name}_{number}"
        taken.add(names[number])
    pairs = [
        (names.get(a, a), names.get(b, b))
        for edge in root.iter("edge")
        if (a := edge.get("source") or "") and (b := edge.get("target") or "")
    ]
    return pairs, list(names.values())


def network_of(pairs: Iterable[tuple[str, str]], nodes: Iterable[str]) -> FileNetworkMap:
    """Return a network map of links between nodes; links are named by their ends."""
    pairs = [(a, b) for a, b in pairs if a and b and a != b]
    names = dict.fromkeys(
        [*(node for node in nodes if node), *(one for pair in pairs for one in pair)]
    )
    free = dict.fromkeys(names, 0)
    links = []
    for (a, b), count in _each_once(pairs).items():
        for number in range(1, count + 1):
            free[a] += 1
            free[b] += 1
            name = f"{a}-{b}" if number == 1 else f"{a}-{b}#{number}"
            links.append(LinkEntry(name=name, a=a, a_index=free[a], b=b, b_index=free[b]))
    routers = [RouterEntry(name=name, address=name) for name in names]
    return FileNetworkMap(NetworkFile(router=routers, link=links))


def _each_once(pairs: Iterable[tuple[str, str]]) -> dict[tuple[str, str], int]:
    """Return how many links join two nodes: one that a list has in both directions is one."""
    listed = Counter(pairs)
    made: dict[tuple[str, str], int] = {}
    for (a, b), count in listed.items():
        if (b, a) not in made:
            made[a, b] = max(count, listed.get((b, a), 0))
    return made
