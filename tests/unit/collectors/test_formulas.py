"""Formulas: arithmetic against Python's own, and sentences for what is none."""

import ast
import operator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.pm.formulas import Formula
from telemetry.errors import ConfigError

COUNTERS = {"a": 7.0, "b": 2.0, "RRC.Att": 50.0, "zero": 0.0, "L.Thrp bits/DL": 8.0}
_DO = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def plain(node: ast.expr) -> float:
    """Evaluate what Python parsed: too simple to be wrong."""
    if isinstance(node, ast.BinOp):
        return float(_DO[type(node.op)](plain(node.left), plain(node.right)))
    if isinstance(node, ast.UnaryOp):
        return -plain(node.operand) if isinstance(node.op, ast.USub) else plain(node.operand)
    if isinstance(node, ast.Name):
        return COUNTERS[node.id]
    assert isinstance(node, ast.Constant)
    return float(node.value)  # type: ignore[arg-type]


TERMS = st.recursive(
    st.one_of(st.integers(0, 99).map(str), st.sampled_from(["a", "b", "zero", "1.5e2", ".5"])),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("+-*/"), inner).map(lambda t: f"{t[0]} {t[1]}{t[2]}"),
        inner.map(lambda t: f"({t})"),
        inner.map(lambda t: f"-({t})"),
        inner.map(lambda t: f"+{t}" if t[0] not in "+-" else t),
    ),
    max_leaves=12,
)


@given(TERMS)
def test_as_python_computes_it(text: str) -> None:
    """Precedence, order, signs; a division by zero is no number."""
    try:
        expected: float | None = plain(ast.parse(text, mode="eval").body)
    except ZeroDivisionError:
        expected = None
    assert Formula(text).value(COUNTERS) == expected


def test_names_with_signs_stand_in_quotes() -> None:
    """And names without need none."""
    formula = Formula('"L.Thrp bits/DL" * 2 / RRC.Att')
    assert formula.names == ("L.Thrp bits/DL", "RRC.Att")
    assert formula.value(COUNTERS) == 0.32


@pytest.mark.parametrize("text", ["a / zero", "missing + 1", "1e308 * 10 * a", "(a - 7) / (b - 2)"])
def test_what_cannot_be_computed_is_no_number(text: str) -> None:
    """None: no sample is made of it."""
    assert Formula(text).value(COUNTERS) is None


@pytest.mark.parametrize(("text", "at"), [
    ("", 1), ("a +", 4), ("* a", 1), ("a b", 2), ("(a", 3), ("a)", 2), ("()", 2), ("a ** b", 4),
    ("a % b", 2), ("__import__('os')", 11), ("a; b", 2), ("a(b)", 2), ("1..2", 3), ('"a', 1),
    ("lambda: a", 8), ("(" * 70 + "a" + ")" * 70, 65), ("-" * 70 + "a", 65),
])  # fmt: skip
def test_what_is_no_formula_is_told_with_its_place(text: str, at: int) -> None:
    """Nothing is evaluated that is not arithmetic."""
    with pytest.raises(ConfigError, match=f"at character {at} "):
        Formula(text)
    with pytest.raises(ConfigError, match="4096"):
        Formula("1+" * 3000 + "1")
