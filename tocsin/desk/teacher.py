"""The teacher process: what needs River, beside the desk and never in the node.

Learns triage from operators' verdicts, watches score rates for drift, and runs river models that were set as
detectors over the frames of the journal. What it finds goes to the node as control rows: after its death
nothing is missing but news. The desk starts it when there is something to do. Where that was new verdicts alone,
it ends once it has learned from them.
"""

import signal
import sys
import threading
from pathlib import Path
from typing import Any

from detectors.river_scores import RiverOptions
from runtime import logs
from runtime.bus import RequestClient
from runtime.clock import SteadyClock
from runtime.journal import BlockKind, JournalReader
from runtime.metrics import Metrics
from runtime.parent import end_with_parent
from telemetry.batch import Batch
from telemetry.errors import ConfigError, TocsinError, TransientError
from telemetry.schemas import FRAME
from tocsin import verbs
from tocsin.config import Config, load_config
from tocsin.state import state_dir

LOOK_SECONDS = 5.0
FRAME_SECONDS = 0.5  # between looks at the journal, where river detectors follow it


class Teacher:
    """One round at a time: `turn` asks the node, learns, and tells it what is new."""

    def __init__(self, config: Config, state: Path, node: RequestClient) -> None:
        from tocsin.desk import teaching

        self._teaching = teaching
        self._node = node
        self._state = state
        self._learned = 0  # number of the newest verdict that the model has seen
        self._drift = teaching.DriftWatch()
        self._detectors = {
            options: teaching.RiverDetector(RiverOptions(**_plain(also.options)))
            for name, also in sorted(config.detection.also.items())
            if also.kind == "river"
            for options in [name]
        }
        self._options = {
            name: RiverOptions(**_plain(config.detection.also[name].options))
            for name in self._detectors
        }
        self._reader: JournalReader | None = None
        self.stays = config.detection.drift or self.follows

    @property
    def follows(self) -> bool:
        """Whether it reads the journal."""
        return bool(self._detectors)

    def turn(self, now_ns: int) -> None:
        """Ask for verdicts and rates; learn what is new."""
        answer = self._node.ask("feedback", verbs.Nothing(), verbs.FeedbackAnswer)
        newest = max((one["number"] for one in answer.feedback), default=0)
        # What a model has learned, an earlier teacher's too, it says itself.
        known = answer.model["newest"] if answer.model else 0
        if newest > max(known, self._learned):
            model, _ = self._teaching.learn_triage(answer.feedback)
            self._tell("triage", {"names": model.names, "weights": model.weights,
                                  "intercept": model.intercept, "learned": model.learned,
                                  "newest": newest})  # fmt: skip
        self._learned = newest
        self._drift.take(answer.rates, now_ns)
        says = verbs.TeacherSays(drifts=list(self._drift.drifts), watched=self._drift.watched())
        self._node.ask("teacher", says, verbs.Nothing)

    def follow(self, next_sequence: int) -> None:
        """Score what the journal has had since the last call; the first begins at `next_sequence`."""
        if self._reader is None:
            self._reader = JournalReader(self._state / "journal", next_sequence=next_sequence)
        try:
            for block in self._reader.read():
                if block.kind is BlockKind.TICK:
                    for batch in block.batches:
                        if batch.schema.name == FRAME.name and batch.rows > 1:
                            self._score(batch)
        except TocsinError:
            self._reader.skip()

    def _score(self, frame: Batch) -> None:
        view = frame.text("view", 0)
        for name, detector in self._detectors.items():
            options = self._options[name]
            if options.view != view:
                continue
            rows = detector.take(frame)
            if rows:
                self._tell("scores", {
                    "model": options.model, "view": view, "measure": options.measure,
                    "rows": [[f"{series:016x}", p, score] for series, p, score in rows],
                })  # fmt: skip

    def _tell(self, kind: str, payload: dict[str, Any]) -> None:
        wish = verbs.OperateRequest(kind=kind, payload=payload)
        answer = self._node.ask("operate", wish, verbs.OperateAnswer)
        if answer.refused:
            raise ConfigError(answer.refused)


def _plain(options: dict[str, Any]) -> dict[str, Any]:
    """Return options as the settings struct takes them; what is wrong was said by `load_config`."""
    return dict(options)


def main() -> None:
    """`python -m tocsin.desk.teacher CONFIG STATE`: until SIGTERM. Exit 2: configuration."""
    end_with_parent(signal.SIGTERM)
    path, state = (Path(argument) if argument else None for argument in sys.argv[1:3])
    clock, ended = SteadyClock(), threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: ended.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        config = load_config(path)
        folder = state_dir(state)
        logs.set_up("teacher", Metrics("teacher"), clock, level=config.node.log_level)
        node = RequestClient(f"ipc://{folder}/node.sock")
        teacher = Teacher(config, folder, node)
        _work(teacher, node, clock, ended)
    except ImportError as error:
        sys.stderr.write(f"tocsin: {error}: pip install 'tocsin[site]' has River\n")
        sys.exit(2)
    except ConfigError as error:
        sys.stderr.write(f"tocsin: {error}\n")
        sys.exit(2)


def _work(
    teacher: Teacher, node: RequestClient, clock: SteadyClock, ended: threading.Event
) -> None:
    due_ns, first = 0, 0
    while not ended.is_set():
        try:
            now_ns = clock.now_ns()
            if teacher.follows:
                first = (
                    first or node.ask("status", verbs.Nothing(), verbs.Status).journal_next_sequence
                )
                teacher.follow(first)
            if now_ns >= due_ns:
                due_ns = now_ns + round(LOOK_SECONDS * 1e9)
                teacher.turn(now_ns)
                if not teacher.stays:
                    return
        except TransientError as error:
            logs.child("teacher").info("node_away error=%s", error)
        ended.wait(FRAME_SECONDS if teacher.follows else LOOK_SECONDS)


if __name__ == "__main__":
    main()
