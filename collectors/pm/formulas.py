"""Formulas over counters: numbers, names, + - * / and parentheses. Nothing else, no evaluation of code.

>>> drop = Formula("100 * (RRC.Att - RRC.Succ) / RRC.Att")
>>> drop.names
('RRC.Att', 'RRC.Succ')
>>> drop.value({"RRC.Att": 50.0, "RRC.Succ": 49.0})
2.0
>>> drop.value({"RRC.Att": 0.0, "RRC.Succ": 0.0}) is None
True
"""

import math
import re
from collections.abc import Mapping

from telemetry.errors import ConfigError

LENGTH_MAX = 4096
DEPTH_MAX = 64
# A name may be quoted, for what has blanks or signs in it: "L.Thrp bits/DL".
_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|\.\d+)"
    r'|(?P<name>[A-Za-z_][\w.:]*)|"(?P<quoted>[^"]+)"|(?P<sign>[-+*/()]))'
)
_NEGATE = "negate"
_BINDS = {"+": 1, "-": 1, "*": 2, "/": 2, _NEGATE: 3}
_Step = float | tuple[str] | str  # a number, a (name,), an operator


class Formula:
    """One formula, compiled to steps for a stack. Raises ConfigError where it cannot be read."""

    def __init__(self, text: str) -> None:
        self.text = text
        if len(text) > LENGTH_MAX:
            raise ConfigError(f"formula of {len(text)} characters, at most {LENGTH_MAX} are read")
        self._steps = self._compile()
        self.names = tuple(dict.fromkeys(s[0] for s in self._steps if isinstance(s, tuple)))

    def value(self, counters: Mapping[str, float]) -> float | None:
        """Return the value, None where a counter is missing or it is no finite number."""
        stack: list[float] = []
        for step in self._steps:
            if isinstance(step, float):
                stack.append(step)
            elif isinstance(step, tuple):
                found = counters.get(step[0])
                if found is None:
                    return None
                stack.append(found)
            elif step == _NEGATE:
                stack.append(-stack.pop())
            else:
                right, left = stack.pop(), stack.pop()
                if step == "/" and not right:
                    return None
                stack.append(
                    left + right if step == "+"
                    else left - right if step == "-"
                    else left * right if step == "*"
                    else left / right
                )  # fmt: skip
        return stack[0] if math.isfinite(stack[0]) else None

    def _compile(self) -> list[_Step]:
        """Turn the text into steps (Dijkstra's shunting yard)."""
        steps: list[_Step] = []
        waiting: list[str] = []
        operand, at = True, 0  # whether an operand is due
        while self.text[at:].strip():
            match = _TOKEN.match(self.text, at)
            if match is None:
                raise self._wrong(at, "a number, a counter, + - * / or a parenthesis")
            sign, start, at = match["sign"], at, match.end()
            if sign is None:
                if not operand:
                    raise self._wrong(start, "an operator")
                name = match["name"] or match["quoted"]
                steps.append((name,) if name else float(match["number"]))
                operand = False
            elif sign == "(":
                if not operand:
                    raise self._wrong(start, "an operator")
                waiting.append(sign)
                if len(waiting) > DEPTH_MAX:
                    raise self._wrong(start, f"at most {DEPTH_MAX} levels")
            elif sign == ")":
                if operand:
                    raise self._wrong(start, "a number or a counter")
                while waiting and waiting[-1] != "(":
                    steps.append(waiting.pop())
                if not waiting:
                    raise self._wrong(start, "no parenthesis, since none is open")
                waiting.pop()
            elif operand:
                if sign not in "+-":
                    raise self._wrong(start, "a number or a counter")
                if sign == "-":
                    waiting.append(_NEGATE)
                    if len(waiting) > DEPTH_MAX:
                        raise self._wrong(start, f"at most {DEPTH_MAX} levels")
            else:
                while waiting and waiting[-1] != "(" and _BINDS[waiting[-1]] >= _BINDS[sign]:
                    steps.append(waiting.pop())
                waiting.append(sign)
                operand = True
        if operand:
            raise self._wrong(len(self.text), "a number or a counter")
        if "(" in waiting:
            raise self._wrong(len(self.text), "a closing parenthesis")
        return [*steps, *reversed(waiting)]

    def _wrong(self, at: int, wanted: str) -> ConfigError:
        return ConfigError(f"formula {self.text!r}: at character {at + 1} {wanted} was expected")
