"""Which processes one Tocsin is made of, by profile, and how each is started."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from runtime.supervisor import Role
from tocsin.process_settings import ProcessSettings
from tocsin.state import kernel_environment

# The desk's Python half handles blocks of megabytes, now and then: each goes back to the system as it is
# freed, not into an arena of each thread. Measured: 8 MB less while it stores, no more CPU.
DESK_ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "262144"}


def roles(settings: ProcessSettings, config_path: Path | None, state: Path) -> list[Role]:
    """Return the child processes of an instance in their order of start."""
    environment, _ = kernel_environment(state)
    # One thread each: the machinery has its own, and maths libraries would add a pool per process.
    environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    # And one arena of memory for its threads: most is allocated under the interpreter's lock anyway.
    environment["MALLOC_ARENA_MAX"] = "1"
    environment |= settings.environment()
    arguments = [str(config_path or ""), str(state)]

    def role(name: str, *, essential: bool = False, more: Mapping[str, str] | None = None) -> Role:
        command = [sys.executable, "-m", f"tocsin.{name}", *arguments]
        return Role(name, command, essential, environment={**environment, **(more or {})})

    made = [role("node", essential=True), role("gate")]
    if settings.node.profile != "sensor":
        made.append(role("desk", more=DESK_ALLOCATOR))
    return made


def plan(settings: ProcessSettings, config_path: Path | None, state: Path) -> str:
    """Return what `tocsin.supervisor` works by, as JSON: the roles, log level and seed."""
    children = [
        {
            "name": role.name,
            "command": list(role.command),
            "essential": role.essential,
            "environment": role.environment,
        }
        for role in roles(settings, config_path, state)
    ]
    node = settings.node
    return json.dumps({"log_level": node.log_level, "seed": node.seed, "roles": children})
