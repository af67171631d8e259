"""Writes docs/configure.md, commands.md and metrics.md from the code. Run it after a setting changed."""

import ast
import sys
from pathlib import Path
from typing import Any

import msgspec

sys.path.insert(0, str(Path(__file__).parents[1]))

from runtime.mistakes import known_keys
from tocsin.cli import VERBS
from tocsin.config import Config

DOCS = Path(__file__).parents[1] / "docs"
PACKAGES = ("runtime", "collectors", "correlator", "detectors", "alerting", "history", "tocsin")


def default_of(key: str) -> tuple[str, str]:
    """Return (type, default) of a dotted key as text."""
    kind: Any = Config
    text = ("", "")
    for part in key.split("."):
        if part == "*":
            continue
        field = next(f for f in msgspec.structs.fields(kind) if f.encode_name == part)
        shown = field.default if field.default is not msgspec.NODEFAULT else "required"
        if field.default_factory is not msgspec.NODEFAULT:
            shown = "see text"
        name = getattr(field.type, "__name__", str(field.type)).replace("typing.", "")
        text = (
            name if "Annotated" not in str(field.type) else str(field.type.__origin__.__name__),
            str(shown),
        )
        inner = field.type
        for argument in getattr(inner, "__args__", ()):
            if isinstance(argument, type) and issubclass(argument, msgspec.Struct):
                inner = argument
        kind = inner
    return text


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
    keys = known_keys(Config)
    leaves = [k for k in keys if not any(other.startswith(k + ".") for other in keys)]
    lines = [
        "# Configuration",
        "",
        "TOML file, then `TOCSIN_TABLE__KEY` in the environment, then flags. `*` is a name of your",
        "choice. `tocsin config check` says what is wrong with a file, `tocsin config show` what counts.",
        "",
        "| key | type | default |",
        "|---|---|---|",
    ]
    for key in leaves:
        kind, default = default_of(key)
        lines.append(
            f"| `{key}` | {kind.replace('|', ' or ')} | {default.replace('|', ' or ') or '(empty)'} |"
        )
    (DOCS / "configure.md").write_text("\n".join(lines) + "\n", "utf-8")
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
