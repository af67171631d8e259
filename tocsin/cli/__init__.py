"""The command line. Each verb lives in a module of its own and is imported when it is used.

Exit codes: 0 ok, 1 error, 2 usage or configuration, 3 findings. No traceback for a user's mistake.
"""

import sys
from importlib import import_module

import click

from telemetry.errors import ConfigError, DecodeError, TransientError
from telemetry.text import printable

# verb: (module below tocsin.cli, one line of help). Help must not import numpy or numba.
VERBS: dict[str, tuple[str, str]] = {
    "run": ("run", "Start Tocsin: receive, detect, alert."),
    "demo": ("demo", "Start a node fed by a simulated carrier whose faults you can watch."),
    "decode": ("decode", "Print the records of captures (pcap, pcapng, MRT, payload files)."),
    "replay": ("replay", "Run the whole chain on captures, a case or a journal."),
    "score": ("score", "Score CSV files with the online detectors, as if they came live."),
    "forecast": ("forecast", "Say what series will do next, with its track record."),
    "capture": ("capture", "Save what led to an alert as one replayable case file."),
    "trace": ("trace", "Show every step that led to an alert, with its inputs."),
    "correlate": ("correlate", "Group an alarm file into incidents; learn what causes what."),
    "alarm": ("alarm", "Acknowledge, shelve, silence, merge, plan works: on a running node."),
    "probation": ("probation", "Say which new detectors may alert yet, let them or hold them."),
    "handover": ("handover", "The report for the next shift: open, changed, shelved, load, noise."),
    "scenario": ("scenario", "Play stories in YAML and check what people would be told."),
    "query": ("query", "Run SQL on the history."),
    "series": ("series", "Print series of the history."),
    "tail": ("tail", "Follow alerts or incidents live."),
    "config": ("config", "Check, show or describe the configuration."),
    "collectors": ("collectors", "List what Tocsin can read, with options and defaults."),
    "doctor": ("doctor", "Say what is wrong on this machine and how to fix it."),
    "outbox": (
        "outbox",
        "List deliveries, retry those that were given up, approve those that wait.",
    ),
    "route": ("route", "Say who would be told of an alarm."),
    "grafana": ("grafana", "Bring the dashboards that ship to a Grafana."),
    "ingest": ("ingest", "Send files of records (CSV, JSON, Arrow, Parquet) to a running Tocsin."),
    "mibs": ("mibs", "Make a table of names from MIB modules, for SNMP."),
    "warm": ("warm", "Compile all kernels into the cache, with progress."),
    "watchdog": ("watchdog", "Watch the node from outside and say when it is blind."),
}


class _Verbs(click.Group):
    """Knows every verb's name and help without importing it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in VERBS:
            return None
        module = import_module(f"tocsin.cli.{VERBS[name][0]}")
        command = getattr(module, name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl([(name, text) for name, (_, text) in VERBS.items()])


@click.command(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tocsin")
def cli() -> None:
    """Tocsin watches a network: few alerts, each explained."""


def main() -> None:
    """Run the command line and turn our own errors into one line and an exit code."""
    try:
        code = cli.main(standalone_mode=False)
    except click.exceptions.Exit as stop:
        code = stop.exit_code
    except click.Abort:
        code = 130
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except ConfigError as error:
        click.echo(f"tocsin: {printable(str(error))}", err=True)
        code = 2
    except (DecodeError, TransientError) as error:
        click.echo(f"tocsin: {printable(str(error))}", err=True)
        code = 1
    except OSError as error:
        name = f" {error.filename}" if error.filename else ""
        click.echo(f"tocsin:{name} {error.strerror or error}", err=True)
        code = 1
    except BrokenPipeError:
        code = 0
    sys.exit(code if isinstance(code, int) else 0)
