"""The long forms of the tests, part by part. `make test-deep`, or `make test-deep PARTS="kills seeds"`.

Says first what it will run. A part that passed is not run again while the code stays the same, so what
was stopped goes on where it was; a part that fails hides no other: all are in the table at the end.

    python3 deploy/deep.py [--plan] [--again] [PART...]

Exit code 0: all of it passed; 1: a part failed; 2: no such part; 130: stopped.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYTHON = ROOT / ".venv" / "bin" / "python"
STATE = ROOT / ".cache" / "deep.json"
LOGS = ROOT / ".cache" / "deep"
LEFT_OUT = ROOT / ".cache" / "left-out"
SOURCES = ("telemetry", "runtime", "collectors", "correlator", "detectors", "history", "alerting",
           "tocsin", "tests", "perf", "deploy", "pyproject.toml", "constraints.txt")  # fmt: skip
KERNEL_TESTS = ("tests/unit/collectors", "tests/unit/correlator", "tests/unit/detectors")


@dataclass(frozen=True)
class Part:
    """One pytest: what it shows, how long it takes on two free cores, what it runs."""

    name: str
    minutes: int
    shows: str
    tests: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    deep: bool = True  # the long form of its tests
    warm: bool = False  # kernels are compiled first, into a cache of their own


CHECKED = {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(ROOT / ".cache" / "numba-checked")}
PARTS = (
    Part("mutants", 30, "1,000,000 mutated datagrams and 200,000 messages, with bounds checks",
         ("tests/fuzz",), CHECKED, warm=True),
    Part("checked", 3, "every read and write of a kernel within its array",
         KERNEL_TESTS, CHECKED, deep=False, warm=True),
    Part("plain", 20, "kernels without JIT: what numba makes of them is what they say",
         KERNEL_TESTS, {"NUMBA_DISABLE_JIT": "1"}, deep=False),
    Part("library", 5, "every kernel compiled ahead of time gives what numba's gives",
         ("tests/contract/test_kernels_ahead_of_time.py",)),
    Part("replay", 2, "the same bytes for any cut, speed, number of shards and prefix",
         ("tests/scenario/test_replay.py",)),
    Part("power", 10, "power cuts and full disks: nothing acknowledged is lost",
         ("tests/live/test_journal_power_cut.py", "tests/live/test_outbox_power_cut.py",
          "tests/live/test_full_disk.py")),
    Part("kills", 15, "50 kills of each process under load, 2 x 26 of a node, 10 of a shard",
         ("tests/scenario/test_kills.py", "tests/scenario/test_crash.py",
          "tests/scenario/test_shards.py", "tests/scenario/test_gate_sources.py")),
    Part("tickets", 10, "10,000 incidents through a ticket system that loses answers",
         ("tests/scenario/test_tickets.py",)),
    Part("properties", 60, "3,000 examples of each property; false alerts in a day of noise",
         ("tests/property", "tests/scenario/test_events.py", "tests/unit/alerting/test_asked.py",
          "tests/unit/alerting/test_datagram_sinks.py",
          "tests/unit/alerting/test_explain.py",
          "tests/unit/collectors/test_formulas.py", "tests/unit/collectors/test_snmp_ber.py",
          "tests/unit/collectors/test_snmp_poll.py", "tests/unit/collectors/test_syslog_frames.py",
          "tests/unit/correlator/test_own_views.py", "tests/unit/correlator/test_routing.py",
          "tests/unit/correlator/test_sample_windows.py", "tests/unit/runtime/test_clock.py",
          "tests/unit/telemetry/test_wire.py")),
    Part("noise", 60, "clean noise, 1,000,000,000 values: the alert budget holds",
         ("tests/unit/perf/test_clean.py", "tests/unit/perf/test_quality.py")),
    Part("grouping", 30, "alarm floods: compression, faults neither merged nor torn",
         ("tests/unit/alerting/test_correlate.py",)),
    Part("routing", 10, "days of routes with faults drawn at random",
         ("tests/unit/detectors/test_routes.py",)),
    Part("security", 40, "days with attacks and without: recall and false alerts",
         ("tests/scenario/test_security.py",)),
    Part("seeds", 60, "20 seeds x 1 simulated day with 8 faults each; slow faults told before",
         ("tests/scenario/test_demo_days.py", "tests/scenario/test_demo_slow_faults.py",
          "tests/unit/detectors/test_prediction.py")),
    Part("inputs", 5, "2,000 polled devices; 100,000 VES events against a schema checker",
         ("tests/live/test_snmp_peers.py", "tests/conformance/test_ves.py")),
    Part("replicas", 3, "two ClickHouse servers of a cluster killed by turns",
         ("tests/live/test_clickhouse_replicas.py",)),
    Part("wheels", 5, "every pin has a wheel for x86-64 and aarch64; asks the package index",
         ("tests/live/test_wheels.py",)),
)  # fmt: skip


@dataclass(frozen=True)
class Result:
    """How a part ended, and of which code."""

    code: str
    passed: bool
    seconds: float
    said: str  # pytest's last line

    @property
    def whole(self) -> bool:
        """Whether no test of it was left out."""
        return "skipped" not in self.said


def code_mark() -> str:
    """Return a digest of all that the tests run: another one, and nothing counts as passed."""
    digest = hashlib.sha256()
    for top in (ROOT / name for name in SOURCES):
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".so":
                if path.is_relative_to(ROOT / "perf" / "results"):
                    continue
                digest.update(f"{path.relative_to(ROOT)} {path.stat().st_size}\n".encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def kept() -> dict[str, Result]:
    """Return the results that were kept; none where the file is missing or damaged."""
    try:
        return {name: Result(**one) for name, one in json.loads(STATE.read_text("utf-8")).items()}
    except (OSError, ValueError, TypeError):
        return {}


def keep(results: Mapping[str, Result]) -> None:
    """Keep results: what is stopped later goes on from here."""
    STATE.parent.mkdir(exist_ok=True)
    new = STATE.with_suffix(".new")
    new.write_text(
        json.dumps({name: vars(one) for name, one in results.items()}, indent=1), "utf-8"
    )
    new.replace(STATE)


def plan(parts: tuple[Part, ...], done: Mapping[str, Result]) -> None:
    """Say what will run, how long that takes, and what will not because it passed."""
    todo = [part for part in parts if part.name not in done]
    say(f"Plan: {len(todo)} of {len(parts)} parts, about {sum(p.minutes for p in todo)} minutes on "
        "two free cores.")  # fmt: skip
    for part in parts:
        state = "passed" if part.name in done else f"{part.minutes} min"
        say(f"  {part.name:<11}{state:>7}   {part.shows}")
    say("Stop with Ctrl-C; the same command goes on. Some: make test-deep PARTS=\"kills seeds\". "
        "Passed ones too: AGAIN=1.")  # fmt: skip


def run(part: Part, environment: Mapping[str, str]) -> Result:
    """Run a part, showing what it says and keeping it in a log."""
    workers = os.environ.get("WORKERS") or str(os.cpu_count() or 1)
    command = [str(PYTHON), "-m", "pytest", "-q", "-n", workers, "--dist", "loadfile", *part.tests]
    began = time.monotonic()
    last = ""
    LOGS.mkdir(parents=True, exist_ok=True)
    with (
        (LOGS / f"{part.name}.log").open("w", encoding="utf-8") as log,
        subprocess.Popen(
            command, cwd=ROOT, env=dict(environment), text=True, errors="replace",
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        ) as process,
    ):  # fmt: skip
        assert process.stdout is not None
        stopped = False
        while True:
            try:
                for line in process.stdout:
                    log.write(line)
                    say(line.rstrip("\n"))
                    last = line.strip() or last
                break
            except KeyboardInterrupt:  # pytest has it too, and ends after its last words
                stopped = True
        code = process.wait()
    if stopped:
        raise KeyboardInterrupt
    return Result("", code == 0, time.monotonic() - began, last.strip("= "))


def environment_of(part: Part) -> dict[str, str]:
    """Return what a part runs in."""
    made = {**os.environ, "TOCSIN_STATE_DIR": str(ROOT / ".cache" / "state")}
    made.setdefault("NUMBA_CACHE_DIR", str(ROOT / ".cache" / "numba"))
    made |= {"TOCSIN_LEFT_OUT": str(LEFT_OUT), "DEEP": "1" if part.deep else ""}
    return made | dict(part.environment)


def run_all(parts: tuple[Part, ...], results: dict[str, Result], mark: str) -> None:
    """Run parts in their order and keep each result at once."""
    for number, part in enumerate(parts, 1):
        say(f"== {part.name} ({number} of {len(parts)}): {part.shows}")
        environment = environment_of(part)
        if part.warm:
            subprocess.run(
                [str(PYTHON), "-m", "tocsin", "warm"], cwd=ROOT, env=environment, check=False
            )
        result = run(part, environment)
        results[part.name] = Result(mark, result.passed, result.seconds, result.said)
        keep(results)


def summary(parts: tuple[Part, ...], results: Mapping[str, Result], mark: str) -> Iterator[str]:
    """Yield the table of the end; a part that did not run on this code is told as such."""
    for part in parts:
        one = results.get(part.name)
        if one is None or one.code != mark:
            yield f"  {part.name:<11}not run"
        else:
            word = "passed" if one.passed else "FAILED"
            yield f"  {part.name:<11}{word}  {one.seconds / 60:6.1f} min  {one.said}"


def say(line: str) -> None:
    """Write a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(arguments: list[str]) -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(p.name for p in PARTS))
    parser.add_argument("--plan", action="store_true", help="say what would run, and end")
    parser.add_argument("--again", action="store_true", help="run parts that passed, too")
    wanted = parser.parse_args(arguments)
    known = {part.name: part for part in PARTS}
    if strange := [name for name in wanted.parts if name not in known]:
        say(f"no part {', '.join(strange)}; there are {', '.join(known)}. Nothing was run.")
        return 2
    parts = tuple(part for part in PARTS if not wanted.parts or part.name in wanted.parts)
    mark, results = code_mark(), kept()
    done = (
        {}
        if wanted.again
        else {n: one for n, one in results.items() if one.code == mark and one.passed and one.whole}
    )
    if wanted.plan:
        plan(parts, done)
        return 0
    LEFT_OUT.parent.mkdir(exist_ok=True)
    LEFT_OUT.unlink(missing_ok=True)
    stopped = False
    try:
        run_all(tuple(part for part in parts if part.name not in done), results, mark)
    except KeyboardInterrupt:
        stopped = True
    say("== deep: " + ("stopped; the same command goes on" if stopped else "done"))
    for line in summary(parts, results, mark):
        say(line)
    if LEFT_OUT.exists():
        say("Left out:")
        for reason in sorted(set(LEFT_OUT.read_text("utf-8").splitlines())):
            say(f"  {reason}")
    if stopped:
        return 130
    good = all(
        (one := results.get(p.name)) is not None and one.code == mark and one.passed for p in parts
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
