"""Numbers as people read them."""

SIZES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
SIGNS = {"Cel": "°C", "1": ""}  # of UCUM, as people write them


def amount(value: float, unit: str) -> str:
    """Return a number with its unit as people say it; bytes a second are bits a second to them.

    What is counted is a whole number.

    >>> amount(1.5e8, "By/s"), amount(0.0, "{record}/s"), amount(41.5, "Cel"), amount(2e9, "By")
    ('1.2 Gbit/s', '0 records/s', '41.5 °C', '2 GB')
    >>> amount(1.2, "{source}"), amount(50.7, "{source}"), amount(0.25, "{flow}/s")
    ('1 source', '51 sources', '0.25 flows/s')
    """
    if unit == "By/s":
        return f"{number(8 * value, ' ')}bit/s"
    if unit in ("By", "bit", "bit/s"):
        return f"{number(value, ' ')}{unit.replace('By', 'B')}"
    if unit[:1] == "{":
        what, _, per = unit[1:].partition("}")
        if not per and abs(value) < 1e15:
            value = float(round(value))
        shown = number(value)
        return f"{shown} {what}{'' if shown == '1' else 's'}{per}"
    return f"{number(value)} {SIGNS.get(unit, unit)}".rstrip()


def number(value: float, gap: str = "") -> str:
    """Return a number of three digits as people read it.

    >>> number(1234567.0), number(0.0), number(12.5), number(999_999.0, " ")
    ('1.23M', '0', '12.5', '1 M')
    """
    shown = float(f"{value:.3g}")
    for limit, letter in SIZES:
        if abs(shown) >= limit:
            return f"{shown / limit:.3g}{gap}{letter}"
    return f"{shown:.3g}{gap}"


def span(seconds: float) -> str:
    """Return a span as people say it.

    >>> span(10), span(240), span(9000), span(86400 * 3)
    ('10 s', '4 min', '2 h', '3.0 days')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 2 * 86_400 else f"{seconds / 86_400:.1f} days"


def rounded(value: float, digits: int = 6) -> float:
    """Return a number with so many significant digits, as messages carry it.

    >>> rounded(1234.56789), rounded(0.98765, 3)
    (1234.57, 0.988)
    """
    most = 10**digits  # most numbers are whole and below: quicker than by way of a text
    if -most < value < most and value == int(value):
        return float(value)
    return float(f"{value:.{digits}g}")
