"""Patterns: what is a variable, what makes a pattern wider, ids, bounds."""

from typing import Any

import numpy as np
import pytest

from collectors.syslog.patterns import FIRST, TELL_AGAIN_NS, TOLD_AGAIN, WIDER, LogPatterns
from runtime.checkpoint import Snapshot


def mine(patterns: LogPatterns, *texts: str, first_ns: int = 0) -> Any:
    """Return what `patterns` makes of these texts, a nanosecond apart."""
    data = [text.encode() for text in texts]
    size = np.array([len(one) for one in data], np.int64)
    start = np.zeros(len(data), np.int64)
    np.cumsum(size[:-1], out=start[1:])
    work = np.frombuffer(b"".join(data), np.uint8)
    arrival_ns = first_ns + np.arange(len(data), dtype=np.int64)
    return patterns.mine(work, start, size, np.ones(len(data), np.uint64), arrival_ns)


def ids(*texts: str, **options: Any) -> list[int]:
    found: list[int] = mine(LogPatterns(**options), *texts).pattern_id.tolist()
    return found


def variables(text: str, mined: Any, m: int) -> list[str]:
    return [
        text[mined.start[i, m] : mined.start[i, m] + mined.size[i, m]]
        for i in range(mined.variables[m])
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Interface xe-0/0/1, changed state to down", ["xe-0/0/1"]),
        ("neighbor 192.0.2.1 (VRF default AS 64500) Up", ["192.0.2.1", "64500"]),
        ("neighbor 2001:db8::1 Down", ["2001:db8::1"]),
        ("from 10.0.0.1:80 to [10.0.0.2]:8080", ["10.0.0.1:80", "10.0.0.2", "8080"]),
        ("Accepted password for user root from", ["root"]),
        ("check pass; user unknown", ["unknown"]),
        ("removing device node '/udev/vcs2'", ["'/udev/vcs2'"]),
        ("User 'root', command 'show log '", ["'root'", "'show log '"]),
        ("can't open it, don't ask", []),
        ("opened /var/log/messages for reading", ["/var/log/messages"]),
        ("rhost=host.example.net tty=ssh", ["host.example.net"]),
        ("at Mon Jun 14 15:16:01 2004", ["Mon Jun 14 15:16:01 2004"]),
        ("connection from 10.0.0.1 () at once", ["10.0.0.1", ""]),
        ("1,024 octets, 7 packets", ["1,024", "7"]),
        ("Ünïcode wörd 5", ["5"]),
        ("", []),
    ],
)
def test_what_is_a_variable(text: str, expected: list[str]) -> None:
    mined = mine(LogPatterns(), text)
    data = text.encode()
    found = [
        data[mined.start[i, 0] : mined.start[i, 0] + mined.size[i, 0]].decode()
        for i in range(mined.variables[0])
    ]
    assert found == expected


def test_lines_that_differ_in_variables_are_one_pattern() -> None:
    same = ids("Interface Gi0/1, changed state to down", "Interface Gi0/22, changed  state to down")
    assert same[0] == same[1]
    other = ids("Interface Gi0/1, changed state to up")
    assert other != same[:1]


def test_the_message_id_tells_patterns_apart() -> None:
    patterns = LogPatterns()
    work, place = np.frombuffer(b"same text", np.uint8), np.zeros(2, np.int64)
    mined = patterns.mine(work, place, place + 9, np.array([1, 2], np.uint64), place)
    assert mined.pattern_id[0] != mined.pattern_id[1]


NAMES = ("alice", "bob", "carol", "dave", "erin", "frank", "grace")
LOGINS = [f"session opened for {name} by root" for name in NAMES]


def test_a_word_of_great_variety_is_a_variable() -> None:
    patterns = LogPatterns(variety=6)
    mined = mine(patterns, *LOGINS)
    found = mined.pattern_id.tolist()
    assert len(set(found[:5])) == 5
    assert found[5] == found[6]
    assert found[5] not in found[:5]
    assert mined.new.tolist() == [FIRST] * 5 + [WIDER, 0]
    # The five before, and the sixth on its own, are part of it.
    assert {new for _, _, new in mined.joined} == {found[5]}
    assert {old for _, old, _ in mined.joined} >= set(found[:5])
    assert variables(LOGINS[6], mined, 6) == ["grace"]


def test_few_states_stay_apart() -> None:
    states = [f"link state is {state} on the trunk" for state in ("up", "down", "idle")]
    assert len(set(ids(*states, *states))) == 3


def test_a_word_where_a_number_stood_is_a_variable() -> None:
    found = ids("last seen at peer 17 again", "last seen at peer borderless again")
    assert found[0] == found[1]
    # In either order; what came first is told to be part of the other.
    mined = mine(LogPatterns(), "last seen at peer borderless again", "last seen at peer 17 again")
    assert mined.joined == [(1, mined.pattern_id[0], mined.pattern_id[1])]
    assert mined.pattern_id[1] == found[0]


def test_ids_do_not_depend_on_order_or_on_what_else_came() -> None:
    forward, backward = ids(*LOGINS), ids(*reversed(LOGINS))
    assert forward[6] == backward[6]
    alone = ids("Configured from console by vty0")
    among = ids(*LOGINS, "Configured from console by vty0")
    assert alone[0] == among[-1]


def test_one_word_says_too_little_to_be_joined() -> None:
    found = ids("42", "active", "blocked", "closing", "halt", "running", "starting", "normal")
    assert len(set(found)) == 8


def test_any_cut_gives_the_same_ids() -> None:
    texts = [*LOGINS, "Interface Gi0/1 up", *LOGINS]
    patterns = LogPatterns()
    parts = [mine(patterns, text, first_ns=i).pattern_id[0] for i, text in enumerate(texts)]
    assert parts == ids(*texts)


def test_the_least_recently_used_give_way() -> None:
    patterns = LogPatterns(patterns_max=256)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = [a + b + c for a in letters[:3] for b in letters for c in letters[:12]]
    texts = [f"{word}ing {word}ed {word}s" for word in words]
    for i, text in enumerate(texts):
        mine(patterns, text, "the one that is always there", first_ns=2 * i)
        assert len(patterns) <= 256
    assert patterns.evicted > 0
    again = mine(patterns, "the one that is always there", first_ns=10_000)
    assert again.new.tolist() == [0]


def test_a_crowd_of_names_costs_no_patterns() -> None:
    patterns = LogPatterns(patterns_max=256)
    letters = "abcdefghijklmnopqrstuvwxyz"
    for i in range(5_000):
        name = letters[i % 26] * 3 + letters[i // 26 % 26] * 2 + letters[i // 676 % 26] * 4
        mine(patterns, f"session opened for {name} by root", first_ns=i)
    assert len(patterns) < 10
    assert patterns.evicted == 0


def test_a_template_is_told_again_each_day() -> None:
    patterns = LogPatterns()
    assert mine(patterns, "one line of text").new.tolist() == [FIRST]
    assert mine(patterns, "one line of text", first_ns=TELL_AGAIN_NS // 2).new.tolist() == [0]
    assert mine(patterns, "one line of text", first_ns=TELL_AGAIN_NS + 1).new.tolist() == [
        TOLD_AGAIN
    ]


def test_after_a_restart_it_goes_on() -> None:
    patterns, again = LogPatterns(), LogPatterns()
    mine(patterns, *LOGINS[:5])
    kept = Snapshot()
    patterns.snapshot(kept)
    again.restore(kept)
    for one in (patterns, again):
        mined = mine(one, *LOGINS[5:])
        assert mined.new.tolist() == [WIDER, 0]
        assert len(one) == 1


def test_state_of_another_bound_is_left() -> None:
    patterns, smaller = LogPatterns(), LogPatterns(patterns_max=256)
    mine(patterns, *(f"{'x' * n} is one of many words" for n in range(1, 400)))
    kept = Snapshot()
    patterns.snapshot(kept)
    smaller.restore(kept)
    assert mine(smaller, "it still learns").new.tolist() == [FIRST]


def test_more_tokens_and_variables_than_are_looked_at() -> None:
    text = " ".join(f"word{'abcdefghijk'[n % 11]} {n}" for n in range(200))
    mined = mine(LogPatterns(), text, text + " and a tail")
    assert mined.variables[0] == 32
    assert mined.pattern_id[0] == mined.pattern_id[1]
