"""How well lines are grouped, on lines that people have labelled (loghub)."""

import csv
from collections import defaultdict
from collections.abc import Hashable, Sequence
from pathlib import Path

import numpy as np

from collectors.syslog.patterns import LogPatterns

NAMES = ("HPC", "Linux", "OpenSSH", "OpenStack", "Zookeeper")


def labelled_lines(shared: Path, name: str) -> tuple[list[str], list[str]]:
    """Return the texts of one of loghub's sets of 2,000 lines, and their labels."""
    path = shared / "captures" / "loghub" / "loghub" / name / f"{name}_2k.log_structured.csv"
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [row["Content"] for row in rows], [row["EventId"] for row in rows]


def mined_groups(texts: Sequence[str], **options: int) -> list[int]:
    """Return the pattern of each text, mined online; a pattern that became part of another is it."""
    data = [text.encode() for text in texts]
    size = np.array([len(one) for one in data], np.int64)
    start = np.zeros(len(data), np.int64)
    np.cumsum(size[:-1], out=start[1:])
    patterns = LogPatterns(**options)
    mined = patterns.mine(
        np.frombuffer(b"".join(data), np.uint8), start, size,
        np.zeros(len(data), np.uint64), np.arange(len(data), dtype=np.int64),
    )  # fmt: skip
    part_of = {old: new for _, old, new in mined.joined}

    def whole(pattern_id: int) -> int:
        while pattern_id in part_of:
            pattern_id = part_of[pattern_id]
        return pattern_id

    return [whole(pattern_id) for pattern_id in mined.pattern_id.tolist()]


def grouping_accuracy(found: Sequence[Hashable], labels: Sequence[Hashable]) -> float:
    """Return the share of lines whose group is, line for line, the group of their label."""
    groups: dict[Hashable, set[int]] = defaultdict(set)
    truth: dict[Hashable, set[int]] = defaultdict(set)
    for line, (group, label) in enumerate(zip(found, labels, strict=True)):
        groups[group].add(line)
        truth[label].add(line)
    right = sum(len(lines) for lines in groups.values() if lines == truth[labels[min(lines)]])
    return right / len(labels)
