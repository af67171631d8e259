"""What sources in the gate offer, seen from the node: each offer counts once and is answered when journalled.

A token that is known is answered at once. Tokens are journalled with what they stand for (a control row
`offer`) and kept in checkpoints, the newest `TOKENS_MAX` of them: a source that repeats an offer after
either side was restarted does not double it. While a disk refuses, no offer is taken; what was taken
before is known by its token once the journal has it, not before.
"""

import json
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from runtime.bus import Later
from runtime.checkpoint import read_array, write_array
from runtime.journal import unpack
from telemetry.batch import Batch
from telemetry.errors import DecodeError
from telemetry.schemas import ALARM, CONTROL, LEDGER, LOG, OPTION, ROUTE, SAMPLE, SERIES
from tocsin import verbs
from tocsin.chain.ticks import Promise
from tocsin.control import control_row

TOKENS_MAX = 100_000
WAITING_BYTES_MAX = 128 * 1024 * 1024  # offered and not journalled yet; beyond it sources must wait
ACCEPTED = frozenset(s.name for s in (SERIES, SAMPLE, ALARM, LOG, ROUTE, OPTION, LEDGER))


class Offers:
    """Tokens that count already, and offers whose tick is not on disk."""

    def __init__(
        self,
        give: Callable[[Sequence[Batch], Promise], None],
        *,
        trouble: Callable[[], str],
    ) -> None:
        """`give` hands batches to the chain and is told what to call once they are on disk;
        `trouble` says why the journal cannot be written, "" where it can."""
        self._give = give
        self._trouble = trouble
        self._tokens: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._waiting: dict[tuple[str, str], list[Later]] = {}
        self._waiting_bytes = 0

    def take(self, offer: verbs.Offered) -> Later | verbs.Nothing:
        """Take an offer. Raises ValueError where it cannot be taken: the source repeats it later."""
        if trouble := self._trouble():
            raise ValueError(trouble)
        key = (offer.source, offer.token)
        if key in self._tokens:
            return verbs.Nothing()
        later = Later()
        if offer.token and key in self._waiting:  # repeated before the first was journalled
            self._waiting[key].append(later)
            return later
        if self._waiting_bytes + len(offer.data) > WAITING_BYTES_MAX:
            raise ValueError(f"{WAITING_BYTES_MAX >> 20} MB of offers wait already")
        try:
            batches = unpack(offer.data)
        except DecodeError as error:
            raise ValueError(f"offer of {offer.source}: {error}") from error
        wrong = {batch.schema.name for batch in batches} - ACCEPTED
        if wrong:
            raise ValueError(
                f"offer of {offer.source}: no source may offer {', '.join(sorted(wrong))}"
            )
        waiting = [later]
        if offer.token:
            self._waiting[key] = waiting
            row = control_row("offer", 0, {"source": offer.source, "token": offer.token})
            batches = (*batches, row)
        self._waiting_bytes += len(offer.data)
        self._give(batches, lambda: self._done(key, waiting, len(offer.data)))
        return later

    def _done(self, key: tuple[str, str], waiting: list[Later], size: int) -> None:
        self._waiting_bytes -= size
        self._waiting.pop(key, None)
        if key[1]:
            self._keep(key)
        for later in waiting:
            later.answer(verbs.Nothing())

    def refuse(self, why: str) -> None:
        """Tell the sources of what waits for the disk to repeat it; its tokens are not known yet."""
        for waiting in self._waiting.values():
            for later in waiting:
                later.fail(why)
            waiting.clear()

    def _keep(self, key: tuple[str, str]) -> None:
        self._tokens[key] = None
        self._tokens.move_to_end(key)
        while len(self._tokens) > TOKENS_MAX:
            self._tokens.popitem(last=False)

    def absorb(self, batches: Sequence[Batch]) -> None:
        """Learn the tokens of a journalled tick."""
        for batch in batches:
            if batch.schema.name != CONTROL.name:
                continue
            for kind, payload in zip(batch.texts("kind"), batch.texts("payload"), strict=True):
                if kind == "offer":
                    fields = json.loads(payload)
                    self._keep((fields["source"], fields["token"]))

    def snapshot(self, out: Any) -> None:
        """Write the tokens."""
        text = json.dumps([*self._tokens])
        write_array(out, "tokens", np.frombuffer(text.encode(), np.uint8))

    def restore(self, state: Any) -> None:
        """Take them back."""
        kept = read_array(state, "tokens")
        for source, token in json.loads(kept.tobytes()) if kept is not None else ():
            self._keep((source, token))
