"""What a source needs around it in a test: a clock that is told the time, and a node that journals or not."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from collectors.sources import Source, SourceSettings, make_source
from runtime.clock import ManualClock
from runtime.component import Context
from telemetry.batch import Batch
from telemetry.errors import TransientError
from telemetry.schemas import ALARM
from tocsin.testing import make_context

START_NS = 1_774_000_700_000_000_000  # a little after the composed samples of other managers


class MemoryNode:
    """Keeps what is offered to it, each token once; refuses while `away`."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.tokens: list[str] = []
        self.away = False
        self.forgets_to_answer = False  # journals, and fails all the same

    def __call__(self, batches: Sequence[Batch], *, token: str = "") -> None:
        if self.away:
            raise TransientError("the node is away")
        if not token or token not in self.tokens:
            self.batches += batches
            self.tokens.append(token)
        if self.forgets_to_answer:
            raise TransientError("no answer")

    def rows(self, schema: str) -> list[dict[str, Any]]:
        """All rows of one schema, in the order in which they came."""
        return [
            row for batch in self.batches if batch.schema.name == schema for row in rows_of(batch)
        ]

    def alarms(self) -> list[tuple[str, str, str]]:
        """(entity, severity or cleared, title) of every alarm row."""
        return [
            (row["entity"], "cleared" if row["state"] == "cleared" else row["severity"],
             row["specific_problem"])
            for row in self.rows(ALARM.name)
        ]  # fmt: skip

    def open_ids(self) -> set[int]:
        """Ids of alarms that are up after all that came."""
        up: set[int] = set()
        for row in self.rows(ALARM.name):
            (up.discard if row["state"] == "cleared" else up.add)(row["alarm_id"])
        return up

    def values(self) -> dict[str, tuple[float, int]]:
        """(value, kind) by the key of its series."""
        keys = {row["series_id"]: row["key"] for row in self.rows("series")}
        return {keys[row["series_id"]]: (row["value"], row["kind"]) for row in self.rows("sample")}

    def clear(self) -> None:
        """Forget the rows, not the tokens."""
        self.batches.clear()


def rows_of(batch: Batch) -> list[dict[str, Any]]:
    """A batch as dictionaries."""
    columns = {
        field.name: batch.texts(field.name) if field.kind.name in ("TEXT", "CODE")
        else batch[field.name].tolist()
        for field in batch.schema.fields
    }  # fmt: skip
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def world(name: str = "there") -> tuple[MemoryNode, ManualClock, Context]:
    """Return a node, a clock and the context of a source."""
    clock = ManualClock(START_NS)
    return MemoryNode(), clock, make_context(name, clock=clock)


def source_of(
    kind: str, options: dict[str, Any], node: MemoryNode, context: Context, folder: Path
) -> Source:
    """Return a source made as the gate makes it."""
    return make_source(
        context.name, SourceSettings(kind=kind, options=options), context, node, folder
    )


class Emulator(Protocol):
    """An emulated system that is asked over HTTP."""

    url: str

    def close(self) -> None: ...


class Polling(Source, Protocol):
    """A source that asks in turns; a test takes one without the source's thread."""

    def turn(self) -> object: ...


Server = TypeVar("Server", bound=Emulator)
Asking = TypeVar("Asking", bound=Polling)


class Polled(Generic[Server, Asking]):
    """An emulated system, a source that polls it, and the node behind, all on one clock."""

    def __init__(
        self,
        kind: str,
        source: type[Asking],
        server: Callable[[Callable[[], float]], Server],
        folder: Path,
        *,
        user: str,
    ) -> None:
        self._kind, self._made = kind, source
        self.node, self.clock, self.context = world(f"noc-{kind}")
        self.server = server(lambda: self.clock.now_ns() / 1e9)
        self.folder = folder / "state"
        (folder / "password").write_text("s3cret\n")
        self.options: dict[str, Any] = {
            "url": self.server.url, "user": user, "password_file": str(folder / "password"),
        }  # fmt: skip
        self.source = self.make()

    def make(self, **more: Any) -> Asking:
        """Make the source anew with these options beside those before, as after a restart."""
        self.options |= more
        made = source_of(self._kind, self.options, self.node, self.context, self.folder)
        assert isinstance(made, self._made)
        self.source = made
        made._feed.load()  # type: ignore[attr-defined]  # what `start` does before it polls
        return made

    def poll(self, *, after: float = 30.0) -> list[tuple[str, str, str]]:
        """Poll once, some seconds later; return the alarm rows that came of it."""
        self.clock.advance(seconds=after)
        self.node.clear()
        self.source.turn()
        return self.node.alarms()
