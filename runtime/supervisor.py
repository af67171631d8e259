"""Keeps the processes of one Tocsin running: starts them in order, restarts the dead, stops them all.

A role that dies is started again after 0.5 s, doubling to 30 s; one that ran for a minute starts
over at 0.5 s. The death of one role stops no other. Exit code 2 says that something of this machine
or the configuration is in the way (a port, a file, a lock): that may be mended, so it is tried again too.
Only where an essential role says so at its first start does the whole program end.
"""

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence

from runtime.clock import told
from runtime.component import Context
from runtime.parent import PARENT

BACK_OFF_FIRST_SECONDS = 0.5
BACK_OFF_MOST_SECONDS = 30.0
STEADY_SECONDS = 60.0
EXIT_CONFIG = 2
STOP_SECONDS = 4.0


class Role:
    """One child process: how to start it, and how it has fared.

    `essential`: a configuration error at the first start ends the whole program; `gives_up`: it ends the
    role. `ends`: exit code 0 says that its work is done. It is `gone` then, until it is started again.
    `pass_fds` are descriptors of ours that it inherits.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        essential: bool = False,
        *,
        environment: Mapping[str, str] | None = None,
        pass_fds: tuple[int, ...] = (),
        ends: bool = False,
        gives_up: bool = False,
    ) -> None:
        self.name = name
        self.command = command
        self.essential = essential
        self.environment = dict(environment or {})
        self.pass_fds = pass_fds
        self.ends = ends
        self.gives_up = gives_up
        self.process: subprocess.Popen[bytes] | None = None
        self.started_ns = 0
        self.restart_at_ns = 0
        self.back_off_seconds = BACK_OFF_FIRST_SECONDS
        self.restarts = 0
        self.deaths = 0  # since it last ran for a minute
        self.code = 0  # how it last ended
        self.gone = False


class Supervisor:
    """Owns the child processes. `poll` is called a few times a second."""

    def __init__(
        self,
        roles: Sequence[Role],
        context: Context,
        *,
        on_change: Callable[[Role, str], None] | None = None,
    ) -> None:
        self._roles = list(roles)
        self._context = context
        self._on_change = on_change or (lambda role, what: None)
        self._restarts = context.metrics.counter(
            "supervisor_restarts_total",
            "child processes started again after they died",
            label="role",
            values=tuple(role.name for role in roles),
        )

    def restarts(self) -> dict[str, int]:
        """Return how often each role was started again."""
        return {role.name: role.restarts for role in self._roles}

    def trouble(self) -> dict[str, str]:
        """Return how each role ended that is down, or that does not stay up."""
        return {
            role.name: f"exit code {role.code}, {role.deaths} times in a row"
            for role in self._roles
            if role.deaths > 1 or (role.deaths and role.process is None)
        }

    def start(self) -> None:
        """Start every role in order."""
        for role in self._roles:
            role.gone = False
            self._spawn(role)

    def _spawn(self, role: Role) -> None:
        parent = str(os.getpid())
        role.process = subprocess.Popen(
            list(role.command),
            env={**os.environ, **role.environment, **told(self._context.clock), PARENT: parent},
            start_new_session=True,
            pass_fds=role.pass_fds,
        )
        role.started_ns = self._context.clock.monotonic_ns()
        self._on_change(role, "started")

    def poll(self) -> int | None:
        """Look after the children; return an exit code when the whole program must end."""
        now = self._context.clock.monotonic_ns()
        for role in self._roles:
            if role.gone:
                continue
            if role.process is None:
                if now >= role.restart_at_ns:
                    self._spawn(role)
                continue
            code = role.process.poll()
            if now - role.started_ns > STEADY_SECONDS * 1e9:
                role.back_off_seconds = BACK_OFF_FIRST_SECONDS
                role.deaths = 0
            if code is None:
                continue
            role.process = None
            if code == 0 and role.ends:
                role.gone = True
                continue
            role.code = code
            # Of one that ran before, it is the world that changed: tried again.
            if code == EXIT_CONFIG and not role.restarts and (role.essential or role.gives_up):
                role.gone = True
                self._on_change(role, "refused its configuration")
                if role.essential:
                    return EXIT_CONFIG
                continue
            role.deaths += 1
            role.restart_at_ns = now + round(role.back_off_seconds * 1e9)
            self._context.log.error(
                "process_died role=%s code=%d restart_in_seconds=%.1f",
                role.name, code, role.back_off_seconds,
            )  # fmt: skip
            role.back_off_seconds = min(role.back_off_seconds * 2, BACK_OFF_MOST_SECONDS)
            role.restarts += 1
            self._restarts.add(role.name)
            self._on_change(role, f"died with code {code}")
        return None

    def stop(self, *, timeout_seconds: float = STOP_SECONDS) -> None:
        """Stop all: SIGTERM to each in reverse order, SIGKILL to those that do not end in time."""
        running = [role for role in reversed(self._roles) if role.process is not None]
        for role in self._roles:
            role.gone = True
        for role in running:
            self._signal(role, signal.SIGTERM)
            self._signal(role, signal.SIGCONT)  # one that was stopped must hear it too
        clock = self._context.clock
        until_ns = clock.monotonic_ns() + round(timeout_seconds * 1e9)
        for role in running:
            assert role.process is not None
            try:
                role.process.wait(max(0.0, (until_ns - clock.monotonic_ns()) / 1e9))
            except subprocess.TimeoutExpired:
                self._context.log.error("process_killed role=%s", role.name)
                role.process.kill()
                role.process.wait()
            role.process = None

    def _signal(self, role: Role, number: int) -> None:
        assert role.process is not None
        with contextlib.suppress(ProcessLookupError):
            role.process.send_signal(number)

    def pids(self) -> dict[str, int]:
        """Return the process ids of the roles that run."""
        return {role.name: role.process.pid for role in self._roles if role.process is not None}

    def health(self) -> str:
        """Return "" or which roles are down."""
        down = [role.name for role in self._roles if role.process is None]
        return f"not running: {', '.join(down)}" if down else ""
