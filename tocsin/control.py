"""Control rows: what changes how records count, journalled with the tick from which it does."""

import json
from collections.abc import Mapping

from telemetry.batch import Batch, batch_from_rows
from telemetry.schemas import CONTROL


def control_row(kind: str, tick_start_ns: int, payload: Mapping[str, object]) -> Batch:
    """Return one control row as a batch."""
    # As UTF-8 and not in escapes: half a surrogate pair must not come back when it is read.
    text = json.dumps(payload, ensure_ascii=False)
    row = {"tick_start_ns": tick_start_ns, "kind": kind, "payload": text}
    return batch_from_rows(CONTROL, [row])
