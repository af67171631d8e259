"""Texts that every encoding of ours can say."""


def sound(text: str) -> str:
    """Return a text with "?" for what no UTF-8 can say: half surrogate pairs.

    They come out of JSON escapes and command lines.

    >>> sound("a\\ud800b")
    'a?b'
    """
    return text.encode("utf-8", "replace").decode("utf-8")


def printable(text: str, characters_max: int = 1000) -> str:
    """Return a text of others as a terminal may have it: control characters escaped, long lines cut.

    >>> printable("a\\x1b[2Jb"), printable("a" * 30, 8)
    ('a\\\\x1b[2Jb', 'aaaaaaaa...')
    """
    lines = text.split("\n")
    return "\n".join(
        "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
        for line in (
            line if len(line) <= characters_max else f"{line[:characters_max]}..." for line in lines
        )
    )
