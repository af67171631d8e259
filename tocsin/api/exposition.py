"""One metrics page out of several processes' pages."""

from collections.abc import Sequence


def merged(texts: Sequence[str]) -> str:
    """Return one Prometheus exposition: families of the same name are put under one HELP and TYPE.

    The samples differ in their `component` label, so they stay apart.

    >>> a = "# HELP n lines\\n# TYPE n counter\\nn{component=\\"a\\"} 1\\n"
    >>> print(merged([a, a.replace('"a"', '"b"')]), end="")
    # HELP n lines
    # TYPE n counter
    n{component="a"} 1
    n{component="b"} 1
    """
    heads: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    for text in texts:
        family = ""
        seen_before: set[str] = set(heads)
        for line in text.splitlines():
            if line.startswith("# "):
                family = line.split(" ", 3)[2]
                if family not in seen_before:
                    heads.setdefault(family, []).append(line)
                samples.setdefault(family, [])
            elif line:
                samples.setdefault(family, []).append(line)
    lines = [line for family in samples for line in (*heads.get(family, ()), *samples[family])]
    return "".join(f"{line}\n" for line in lines)
