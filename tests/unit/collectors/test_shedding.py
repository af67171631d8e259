"""What is shed of flow streams over their limit: by chance, without bias, and never what is no sample."""

import numpy as np
import pytest

from collectors.config import FlowDecoderSettings
from collectors.flow.decoder import FlowDecoder
from collectors.flow.shedding import PACE, thin
from tests.support.flow_messages import (
    block,
    data_set,
    ipfix,
    options_set,
    template_set,
    v9,
    v9_options_set,
)
from tocsin.testing import make_context

SECOND = 1_000_000_000
LIMIT = 20


def weights(streams: int, each: int, seed: int) -> np.ndarray:
    """Return the weights of `each` datagrams of so many streams that send alike, over ten seconds."""
    key = np.random.default_rng(seed).integers(0, 1 << 16, (streams, 4)).astype(np.uint64)
    stream = np.tile(np.arange(streams, dtype=np.int32), each)
    arrival_ns = np.sort(np.repeat(np.arange(each) * (10 * SECOND // each), streams))
    weight = np.zeros(stream.size, np.uint32)
    pace = np.zeros((streams, PACE), np.int64)
    every = np.ones(stream.size, np.uint8)
    shed = thin(stream, arrival_ns + SECOND, every, LIMIT, key, pace, weight)
    assert shed == (weight == 0).sum()
    return weight.reshape(each, streams)


@pytest.mark.parametrize("seed", range(5))
def test_errors_of_streams_are_independent(seed: int) -> None:
    """Else a sum over a hundred routers would be no better than one router's."""
    made = weights(streams=100, each=LIMIT * 10 * 6, seed=seed)
    assert (made.sum(axis=0) != len(made)).mean() > 0.9  # one stream alone is an estimate
    assert int(made.sum()) == pytest.approx(made.size, rel=0.02)
    assert ((made > 0).sum(axis=0) <= LIMIT * 12).all()


def sheds(datagrams: list[bytes], others: int) -> tuple[int, int]:
    """Return (rows of flows, rows of options) of what a stream far over its limit sent."""
    decoder = FlowDecoder(FlowDecoderSettings(datagrams_per_second_max=1), make_context())
    rows = {"flow": 0, "option": 0}
    for data in datagrams[:others], datagrams[others:]:
        for batch in decoder.decode(block(*data)):
            rows[batch.schema.name] += batch.rows
    return rows["flow"], rows["option"]


@pytest.mark.parametrize("version", [9, 10])
def test_options_data_and_templates_behind_data_are_never_shed(version: int) -> None:
    """Names and rates come in data sets too, and a template need not stand first."""
    message, flow = (v9 if version == 9 else ipfix), [(8, 4), (12, 4), (2, 4), (1, 4)]
    names = (
        v9_options_set(300, [(2, 4)], [(82, 8)])
        if version == 9
        else options_set(300, [(10, 4)], [(82, 8)])
    )
    begin = [message(template_set(256, flow, version=version), names)]
    record = bytes(range(16))
    sent = []
    for i in range(200):
        sent.append(message(data_set(256, record)))
        if i % 10 == 0:
            name = i.to_bytes(4, "big") + f"port{i:04}".encode()
            sent.append(message(data_set(256, record), data_set(300, name)))
        if i % 50 == 0:
            late = template_set(400 + i, flow, version=version)
            sent.append(message(data_set(256, record), late))
            sent.append(message(data_set(400 + i, record * 2)))
    flows, options = sheds([*begin, *sent], others=1)
    assert options == 20
    assert 24 <= flows < 150  # 20 with options, 4 with templates, and few of the rest
