"""Two weeks of history before the demo begins, through the pure chain: no sockets, no waiting.

Each quarter of an hour one tick of the live length is made, merged and learned as standing for the
whole quarter, so baselines know level, day, week and the spread of such ticks. The state is saved
as a checkpoint that the node then starts from, and as journal blocks that desk stores.
"""

from collections.abc import Callable
from pathlib import Path

from correlator.windows import FlowWindows
from runtime.checkpoint import Checkpoints
from runtime.clock import ManualClock
from runtime.journal import BlockKind
from runtime.journal_writer import JournalWriter
from runtime.metrics import Metrics
from telemetry.batch import Batch
from telemetry.schemas import FRAME
from tocsin.chain.assembly import make_back
from tocsin.chain.back import Back
from tocsin.chain.intake import customer_sources, make_context
from tocsin.config import Config
from tocsin.demo.traffic import TrafficModel

QUARTER_NS = 900_000_000_000


def bootstrap(
    config: Config,
    model: TrafficModel,
    *,
    until_ns: int,
    days: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
    on_frames: Callable[[int, list[Batch]], None] = lambda end_ns, batches: None,
) -> Back:
    """Return a back half of the chain that has learned `days` days up to `until_ns`."""
    clock, metrics = ManualClock(), Metrics("bootstrap")
    back = make_back(config, clock, metrics)
    tick_ns = round(config.views.tick_seconds * 1e9)
    lateness_ns = round(config.views.lateness_seconds * 1e9)
    quarters = days * 96
    first_ns = (until_ns - quarters * QUARTER_NS) // tick_ns * tick_ns
    backbone, customers = back.backbone(), customer_sources(config)
    for number in range(quarters):
        start_ns = first_ns + number * QUARTER_NS
        windows = FlowWindows(
            config.all_views(),
            make_context("windows", clock, metrics, 0),
            backbone=backbone,
            customers=customers,
        )
        windows.process(model.exported(start_ns, tick_ns))
        frontier_ns = start_ns + tick_ns + lateness_ns
        for batch in windows.advance(frontier_ns):
            back.merger.process(batch)
        made = list(back.merger.advance(frontier_ns))
        for batch in made:
            if batch.schema.name == FRAME.name:
                back.detection.bootstrap(batch, stands_for_seconds=QUARTER_NS / 1e9)
        on_frames(start_ns + tick_ns, made)
        if number % 32 == 0:
            progress(number, quarters)
    progress(quarters, quarters)
    return back


def prepare_state(
    config: Config,
    model: TrafficModel,
    state: Path,
    *,
    until_ns: int,
    days: int,
    progress: Callable[[int, int], None],
) -> None:
    """Write journal and checkpoint of a node that has seen two weeks of this network."""
    clock, metrics = ManualClock(until_ns), Metrics("bootstrap")
    context = make_context("journal", clock, metrics, 0)
    journal = JournalWriter(state / "journal", context, segment_seconds=1e9)
    journal.start()

    def keep(end_ns: int, batches: list[Batch]) -> None:
        frames = [batch for batch in batches if batch.schema.name != "evidence"]
        journal.append(BlockKind.TICK, end_ns, frames, sync=False)

    back = bootstrap(config, model, until_ns=until_ns, days=days, progress=progress, on_frames=keep)
    journal.stop()
    Checkpoints(state / "checkpoints", context).save(
        journal.next_sequence - 1, until_ns, {"back": back}
    )
