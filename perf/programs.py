"""Programs that are measured: what they say is kept, and that one has ended is told at once."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

LAST_LINES = 20


class Program(subprocess.Popen[bytes]):
    """A program in a process group of its own, whose output goes to `<folder>/<name>.said`."""

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        *,
        name: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._name = name or Path(command[0]).name
        self._said = folder / f"{self._name}.said"
        with self._said.open("wb") as out:
            super().__init__(
                command, stdout=out, stderr=out, env=environment, start_new_session=True
            )

    def must_run(self) -> None:
        """End the measurement where the program has ended, with the last lines of what it said."""
        if self.poll() is not None:
            lines = self._said.read_text("utf-8", "replace").splitlines()[-LAST_LINES:]
            raise SystemExit("\n".join([f"{self._name} ended with {self.returncode}:", *lines]))
