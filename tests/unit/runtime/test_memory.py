"""What the kernel says of a process's memory, and giving back what a library's file takes."""

import os
import subprocess
import sys

from runtime.memory import children_of, pss_bytes, rss_bytes


def test_a_share_is_never_more_than_what_is_resident() -> None:
    assert 0 < pss_bytes() <= rss_bytes() * 1.1  # it grows while it is read
    assert (pss_bytes(1 << 30), rss_bytes(1 << 30), children_of(1 << 30)) == (0, 0, [])


def test_children_are_found() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert child.pid in children_of(os.getpid())


def test_a_library_that_was_given_back_still_works() -> None:
    code = (
        "import sqlite3, _sqlite3; from runtime.memory import give_back, rss_bytes;"
        "one = sqlite3.connect(':memory:'); one.execute('select 1'); before = rss_bytes();"
        "give_back('libpython'); give_back('libsqlite3'); give_back('_sqlite3');"
        "assert rss_bytes() < before, (rss_bytes(), before);"
        "print(one.execute('select 40 + 2').fetchone()[0])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "42\n"
