"""What the guard of the SQL lets through and what it refuses."""

from pathlib import Path

import pytest

from history.chdb_store import ChdbStore
from history.read_only import (
    BYTES_MAX,
    OTHER_TABLE_FUNCTIONS,
    TABLE_FUNCTIONS,
    check_format,
    read_only,
)
from telemetry.errors import DecodeError, TransientError


@pytest.mark.parametrize(
    ("sql", "run", "form"),
    [
        pytest.param("select 1;", "select 1", "", id="closing-semicolon"),
        pytest.param("(select 1) format JSON", "(select 1)", "JSON", id="format"),
        pytest.param("select a as format from t", "select a as format from t", "", id="format-name"),
        pytest.param(
            "select a from t settings max_threads = 8, x='y' format Native settings z = -1",
            "select a from t",
            "Native",
            id="settings-before-and-behind-format",
        ),
        pytest.param(
            "select * from (select 1 settings readonly=0) limit 1",
            "select * from (select 1 ) limit 1",
            "",
            id="settings-inside",
        ),
        pytest.param(
            "select name from system.settings where name = 'a'",
            "select name from system.settings where name = 'a'",
            "",
            id="a-table-called-settings",
        ),
        pytest.param(
            "with 'into outfile; file(' as x -- drop table y;\nselect x, {v:String}",
            "with 'into outfile; file(' as x select x, {v:String}",
            "",
            id="words-inside-texts-and-comments",
        ),
        pytest.param("select `a;b`, \"c(\" from t", "select `a;b`, \"c(\" from t", "", id="names"),
        pytest.param("select 'it''s \\' ü'", "select 'it''s \\' ü'", "", id="escapes"),
        pytest.param("explain select 1e-5 -1", "explain select 1e-5 -1", "", id="numbers"),
    ],
)  # fmt: skip
def test_a_reading_statement_passes(sql: str, run: str, form: str) -> None:
    statement = read_only(sql)
    assert (statement.sql, statement.form) == (run, form)


@pytest.mark.parametrize(
    ("sql", "sentence"),
    [
        pytest.param("", "empty", id="empty"),
        pytest.param(" ; ", "empty", id="only-semicolon"),
        pytest.param("select 1; select 2", "one statement", id="two-statements"),
        pytest.param("insert into t values (1)", "'insert' cannot", id="insert"),
        pytest.param("set readonly = 0", "'set' cannot", id="set"),
        pytest.param("kill query where 1", "'kill' cannot", id="kill"),
        pytest.param("use system", "'use' cannot", id="use"),
        pytest.param("system shutdown", "'system' cannot", id="system"),
        pytest.param("2 + 2", "'2' cannot", id="implicit-select"),
        pytest.param("select 1 into outfile '/tmp/x'", "writes files", id="outfile"),
        pytest.param("select 1 INTO/**/OutFile '/tmp/x'", "writes files", id="outfile-hidden"),
        pytest.param("select * from file('/etc/passwd')", "file()", id="file"),
        pytest.param("select * from FILE /* */ ('/etc/passwd')", "file()", id="file-spaced"),
        pytest.param("select * from \"file\"('/etc/passwd')", "file()", id="file-quoted"),
        pytest.param("select * from `f\\x69le`('/etc/passwd')", "reaches", id="file-escaped"),
        pytest.param("select * from {f:Identifier}('/etc/passwd')", "called", id="file-by-parameter"),
        pytest.param("select 1.file('/etc/passwd')", "called", id="file-behind-a-number"),
        pytest.param("describe url('http://127.0.0.1/')", "url()", id="describe-url"),
        pytest.param("select * from python(secrets)", "python()", id="python"),
        pytest.param("select hasColumnInTable('h','u','p','d','t','c')", "reaches", id="socket"),
        pytest.param("select * from t format Template", "format 'Template'", id="schema-format"),
        pytest.param("select $a$ x $a$", "cannot read", id="heredoc"),
        pytest.param("select \u20181\u2019", "cannot read", id="typographic-quotes"),
        pytest.param("select 1 into\u200boutfile 'x'", "cannot read", id="blank-of-no-width"),
        pytest.param("select 'open", "cannot read", id="text-without-end"),
        pytest.param("select 1\x00", "zero byte", id="zero-byte"),
        pytest.param("select " + "1," * BYTES_MAX, "at most", id="too-long"),
    ],
)  # fmt: skip
def test_anything_else_is_refused_with_the_reason(sql: str, sentence: str) -> None:
    with pytest.raises(DecodeError, match="refused") as refusal:
        read_only(sql)
    assert sentence in str(refusal.value)
    assert refusal.value.reason == "refused"


@pytest.mark.parametrize("name", ["JSONEachRow", "CSVWithNames", "Native", "Null"])
def test_formats_that_write_rows_are_known(name: str) -> None:
    assert check_format(name) == name


def test_every_table_function_of_the_engine_is_judged(tmp_path: Path) -> None:
    """A newer engine with a new way out fails here until somebody has looked at it."""
    store = ChdbStore(tmp_path, memory_bytes_max=400 * 1024**2)
    connection = store.connect()
    try:
        rows = connection.rows("select lower(name) as name from system.table_functions")
    finally:
        connection.close()
    known = {row["name"] for row in rows}
    assert "file" in known
    assert known <= TABLE_FUNCTIONS | OTHER_TABLE_FUNCTIONS
    assert not TABLE_FUNCTIONS & OTHER_TABLE_FUNCTIONS


def test_the_engine_locks_out_what_would_pass_the_guard(tmp_path: Path) -> None:
    """readonly = 1 is the second lock: limits cannot be lifted, nothing can be written."""
    store = ChdbStore(tmp_path, memory_bytes_max=400 * 1024**2)
    writer = store.connect()
    reader = store.connect(read_only=True, seconds_max=1, rows_max=100)
    try:
        for sql in (
            "set max_execution_time = 100",
            "create table default.t (a Int8) engine = Memory",
            "select * from file('/etc/passwd', 'LineAsString')",
            "select sum(number) from numbers(100000000000)",  # runs into its second
        ):
            with pytest.raises(TransientError):
                reader.run(sql)
        assert reader.rows("select 1 as one") == [{"one": 1}]
    finally:
        reader.close()
        writer.close()
