"""Templates: what is compiled, what is shared, what is thrown out."""

import struct

from collectors.config import FlowDecoderSettings
from collectors.flow.decoder import FlowDecoder
from collectors.flow.templates import PLANS_SPARE_MAX, Field, Template, TemplateStore
from tests.support.flow_messages import block, data_set, ipfix, template_set
from tocsin.testing import make_context

STREAM = (0, 1, 10 << 16 | 2055, 0)


def template(template_id: int, *widths: int, scopes: int = 0) -> Template:
    return Template(STREAM, template_id, tuple(Field(1, w) for w in widths), scopes, 0)


def test_templates_of_one_layout_share_a_plan() -> None:
    store = TemplateStore(per_exporter_max=8)
    first, same, other = template(256, 4, 2), template(257, 4, 2), template(258, 2, 4)
    assert [store.put(t) for t in (first, same, other)] == ["new"] * 3
    assert first.plan == same.plan != other.plan


def test_an_exporter_has_only_so_many_templates() -> None:
    store = TemplateStore(per_exporter_max=2)
    assert [store.put(template(256 + n, 4)) for n in range(3)] == ["new", "new", "refused"]


def test_a_layout_that_changes_for_ever_does_not_grow_memory() -> None:
    made = FlowDecoder(FlowDecoderSettings(), make_context())
    kept = ipfix(template_set(300, [(8, 4), (1, 4)]), domain=7)
    made.decode(block(kept))
    for n in range(3 * PLANS_SPARE_MAX):
        made.decode(block(ipfix(template_set(256, [(95, n + 1), (1, 4)]))))
    made.decode(block())
    assert made.templates.plans.first.size <= PLANS_SPARE_MAX + 3
    assert len(made.templates) == 2
    # The template that stayed still decodes, under the row its plan has now.
    record = struct.pack("!II", 9, 77)
    (batch,) = made.decode(block(ipfix(data_set(300, record), domain=7)))
    assert batch["octets"].tolist() == [77]
