"""Numbers as people read them."""

SIZES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def amount(value: float, unit: str) -> str:
    """Return a number with its unit as people say it; bytes a second are bits a second to them.

    >>> amount(1.5e8, "By/s"), amount(0.0, "{record}/s"), amount(41.5, "Cel")
    ('1.2 Gbit/s', '0 records/s', '41.5 Cel')
    """
    if unit == "By/s":
        return f"{number(8 * value, ' ')}bit/s"
    words = unit.replace("{", "").replace("}/", "s/").replace("}", "s")
    return f"{number(value)} {words}".rstrip()


def number(value: float, gap: str = "") -> str:
    """Return a number as people read it.

    >>> number(1234567.0), number(0.0), number(12.5)
    ('1.23M', '0', '12.5')
    """
    for limit, letter in SIZES:
        if abs(value) >= limit:
            return f"{value / limit:.3g}{gap}{letter}"
    return f"{value:.3g}{gap}"


def rounded(value: float, digits: int = 6) -> float:
    """Return a number with so many significant digits, as messages carry it.

    >>> rounded(1234.56789), rounded(0.98765, 3)
    (1234.57, 0.988)
    """
    most = 10**digits  # most numbers are whole and below: quicker than by way of a text
    if -most < value < most and value == int(value):
        return float(value)
    return float(f"{value:.{digits}g}")
