"""Grouping of loghub's labelled lines: floors, beside what Drain3 reaches on the same lines.

Facts (perf/collectors.py prints today's): grouping accuracy, the share of lines whose group is exactly
a labelled group (Zhu et al., ICSE-SEIP 2019). Drain3 0.9.11 with its defaults: .741 HPC, .684 Linux,
.718 OpenSSH, .309 OpenStack, .967 Zookeeper; with its own example masks .887 on HPC, the rest alike.
"""

from pathlib import Path

import pytest

from tests.support.log_grouping import grouping_accuracy, labelled_lines, mined_groups


@pytest.mark.parametrize(
    ("name", "floor", "drain"),
    [
        ("HPC", 0.88, 0.741),
        ("Linux", 0.99, 0.684),
        ("OpenSSH", 1.0, 0.718),
        ("OpenStack", 1.0, 0.309),
        ("Zookeeper", 0.99, 0.967),
    ],
)
def test_grouping(shared: Path, name: str, floor: float, drain: float) -> None:
    texts, labels = labelled_lines(shared, name)
    accuracy = grouping_accuracy(mined_groups(texts), labels)
    assert accuracy >= floor > drain


def test_the_figure_is_that_of_the_paper() -> None:
    """A group split in two counts none of its lines; one that is whole counts all."""
    assert grouping_accuracy([1, 1, 2, 2, 2], ["a", "a", "b", "b", "b"]) == 1.0
    assert grouping_accuracy([1, 1, 2, 2, 3], ["a", "a", "b", "b", "b"]) == pytest.approx(0.4)
    assert grouping_accuracy([1, 1, 1], ["a", "a", "b"]) == 0.0
