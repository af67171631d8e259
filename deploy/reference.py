"""Writes docs/configure.md, commands.md and metrics.md from the code. Run it after a setting changed."""

import ast
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from alerting.sinks import SINKS
from collectors.registry import COLLECTORS
from collectors.sources import SOURCES
from detectors.registry import DETECTORS
from runtime.described import Option, options_of
from tocsin.cli import VERBS
from tocsin.config import Config

if TYPE_CHECKING:
    from runtime.registry import Registry

DOCS = Path(__file__).parents[1] / "docs"
PACKAGES = ("runtime", "collectors", "correlator", "detectors", "alerting", "history", "tocsin")


# What is configured by kind: (where it goes, the parts).
PARTS: tuple[tuple[str, str, "Registry[Any]"], ...] = (
    ("Collectors", "collectors.*.options", COLLECTORS),
    ("Sources", "sources.*.options", SOURCES),
    ("Detectors", "detection.also.*.options", DETECTORS),
    ("Sinks", "alerting.sinks.*.options", SINKS),
)


def settings_table(options: Iterable[Option]) -> list[str]:
    """Return a table of what can be set."""
    lines = ["| key | type | default | what it is |", "|---|---|---|---|"]
    for one in options:
        default = "required" if one.required else toml(one.default)
        what = one.what.replace("|", "\\|")
        lines.append(f"| `{one.key}` | {one.type} | {default} | {what} |")
    return lines


def toml(value: Any) -> str:
    """Return a default as it would stand in the file."""
    text = json.dumps(value, ensure_ascii=False)
    return f"`{text}`" if value not in (None, "", [], {}) else "(empty)"


def configure() -> list[str]:
    """Return docs/configure.md."""
    lines = [
        "# Configuration",
        "",
        "TOML file, then `TOCSIN_TABLE__KEY` in the environment, then flags. `*` is a name of your",
        "choice. `tocsin config check` says what is wrong with a file, `tocsin config show` what counts.",
        "",
        *settings_table(options_of(Config)),
    ]
    for title, place, registry in PARTS:
        lines += ["", f"## {title}: `{place}`, by kind"]
        for kind in sorted(registry.ours):
            part = registry.get(kind)
            options = list(options_of(part.options))
            lines += ["", f"### {kind}", "", f"{part.title[:1].upper()}{part.title[1:]}."]
            lines += ["", *settings_table(options)] if options else ["No options."]
    return lines


def metrics() -> dict[str, tuple[str, str, str]]:
    """Return (kind, label, help) of every metric that the code makes, by name."""
    found: dict[str, tuple[str, str, str]] = {}
    root = DOCS.parent
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            for call in ast.walk(ast.parse(path.read_text("utf-8"))):
                if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
                    continue
                if call.func.attr not in ("counter", "gauge", "histogram") or len(call.args) < 2:
                    continue
                name, text = (_text(argument) for argument in call.args[:2])
                labels = [_text(k.value) for k in call.keywords if k.arg in ("label", "labels")]
                if name and text:
                    found[f"tocsin_{name}"] = (call.func.attr, "".join(labels), text)
    return dict(sorted(found.items()))


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return ""


def main() -> None:
    """Write the files."""
    (DOCS / "configure.md").write_text("\n".join(configure()) + "\n", "utf-8")
    lines = [
        "# Commands",
        "",
        "`tocsin VERB --help` says more.",
        "",
        "| verb | what it does |",
        "|---|---|",
    ]
    lines += [f"| `{name}` | {text} |" for name, (_, text) in VERBS.items()]
    (DOCS / "commands.md").write_text("\n".join(lines) + "\n", "utf-8")
    lines = [
        "# Metrics",
        "",
        "At `/metrics` of desk (profile site) or gate (sensor), in Prometheus' text form.",
        "",
        "| metric | kind | label | what it counts |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| `{name}` | {kind} | {label} | {text} |"
        for name, (kind, label, text) in metrics().items()
    ]
    (DOCS / "metrics.md").write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main()
