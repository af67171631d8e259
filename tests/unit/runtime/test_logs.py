"""Log lines: one event is one line, whatever others wrote into it."""

import logging

import pytest

from runtime.clock import ManualClock
from runtime.logs import WHOLE, set_up
from runtime.metrics import Metrics


def test_what_others_wrote_moves_no_terminal_and_makes_no_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log = set_up("gate", Metrics("logs"), ManualClock())
    try:
        raise ValueError("two\nlines")
    except ValueError:
        log.exception("sink_failed error=%s", "400 \x00\x1b]0;pwn\x07\nERROR all is lost\u2028")
    first, *traceback = capsys.readouterr().err.splitlines()
    assert first.endswith(r"sink_failed error=400 \x00\x1b]0;pwn\x07\nERROR all is lost\u2028")
    assert traceback[0] == "Traceback (most recent call last):"
    logging.getLogger("tocsin").handlers.clear()


def test_of_one_place_there_are_twenty_lines_a_minute_but_of_a_record_all(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log = set_up("gate", Metrics("logs"), ManualClock())
    for number in range(25):
        log.info("tried number=%d", number)
        log.info("action_noted number=%d", number, extra=WHOLE)
    said = capsys.readouterr().err
    assert (said.count("tried"), said.count("action_noted")) == (20, 25)
    logging.getLogger("tocsin").handlers.clear()
