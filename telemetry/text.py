"""Texts that every encoding of ours can say."""


def sound(text: str) -> str:
    """Return a text with "?" for what no UTF-8 can say: half surrogate pairs.

    They come out of JSON escapes and command lines.

    >>> sound("a\\ud800b")
    'a?b'
    """
    return text.encode("utf-8", "replace").decode("utf-8")
