"""Which statements a stranger may run: one that reads, and that reaches no file, socket or process.

The engine's `readonly = 1` is the second lock, not the first. Measured on chDB 26.5 with readonly = 1:
`INTO OUTFILE` writes files, `KILL QUERY` kills, `DESCRIBE file(...)` reads files, and
`hasColumnInTable('host', ...)` opens connections. So a statement is read here, token by token, and
what is not plainly harmless is refused with a sentence. SETTINGS clauses are taken out (Grafana sends
them and readonly = 1 would refuse the whole query), a closing FORMAT is taken out and handed back.
"""

import re
from dataclasses import dataclass

from telemetry.errors import DecodeError

BYTES_MAX = 256 * 1024
OPENERS = ("SELECT", "WITH", "FROM", "SHOW", "DESCRIBE", "DESC", "EXISTS", "EXPLAIN")


def _names(*lines: str) -> frozenset[str]:
    return frozenset(name for line in lines for name in line.split())


# Table functions that make rows out of nothing or out of our own tables.
TABLE_FUNCTIONS = _names(
    "format generate_series generaterandom generateseries merge null numbers numbers_mt primes",
    "sqlstandardvalues values view viewexplain viewifpermitted zeros zeros_mt",
)
# All the others that the engine has or had: files, sockets, other processes, our own memory.
OTHER_TABLE_FUNCTIONS = _names(
    "arrowflight azureblobstorage azureblobstoragecluster cluster clusterallreplicas cosn deltalake",
    "deltalakecluster dictionary executable file filecluster filesystem fuzzjson fuzzquery gcs hdfs",
    "hdfscluster hive hudi hudicluster iceberg icebergazure icebergcluster iceberghdfs iceberglocal",
    "icebergs3 input jdbc loop meilisearch mergetreeanalyzeindexes mergetreeanalyzeindexesuuid",
    "mergetreeindex mergetreeparts mergetreeprojection mergetreetextindex mongodb mysql odbc oss",
    "paimon postgresql prometheusquery prometheusqueryrange python redis remote remotesecure s3",
    "s3cluster sqlite timeseriesdata timeseriesmetrics timeseriesselector timeseriestags url",
    "urlcluster ytsaurus",
)
# Functions that reach out, or that hold a connection for nothing.
FUNCTIONS_REFUSED = _names(
    "addresstoline addresstolinewithinlines addresstosymbol catboostevaluate demangle",
    "getclienthttpheader hascolumnintable logtrace modelevaluate reversednsquery showcertificate",
    "sleep sleepeachrow",
)
_REFUSED_CALLS = OTHER_TABLE_FUNCTIONS | FUNCTIONS_REFUSED

# Output formats that write rows and need no schema file.
_FORMAT = re.compile(
    r"Native|RowBinary\w*|TabSeparated\w*|TSV\w*|CSV\w*|JSON\w*|Pretty\w*|Values|Vertical|XML"
    r"|Markdown|Arrow|ArrowStream|Parquet|ORC|Avro|MsgPack|Null|One|LineAsString"
)

# Quotes and comments as the engine's own lexer cuts them. Characters that it knows and that are not
# here (`$` of heredocs, typographic quotes, exotic blanks) are refused, so that it and we can never
# disagree on where a text ends.
_TOKEN = re.compile(
    r"(?P<blank>[ \t\r\n\f\v]+)"
    r"|(?P<comment>--[^\n]*|\#[ !][^\n]*|/\*.*?\*/)"
    r"|(?P<text>'(?:[^'\\]|\\.|'')*')"
    r'|(?P<name>"(?:[^"\\]|\\.|"")*"|`(?:[^`\\]|\\.|``)*`)'
    r"|(?P<word>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<number>[0-9][A-Za-z0-9_.]*)"
    r"|(?P<end>;)"
    r"|(?P<sign>[()\[\]{},.:?=<>!+\-*/%|@^&])",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement that may run, and the output format it asked for ("" = none)."""

    sql: str
    form: str


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str

    def is_word(self, *words: str) -> bool:
        return self.kind == "word" and self.text.upper() in words

    def is_sign(self, sign: str) -> bool:
        return self.kind == "sign" and self.text == sign


def read_only(sql: str) -> Statement:
    """Return the statement as it may run, or raise DecodeError (`refused`) with the reason.

    >>> read_only("select 1 settings max_threads = 8 format JSON;")
    Statement(sql='select 1', form='JSON')
    >>> read_only("select * from file('/etc/passwd')")
    Traceback (most recent call last):
    telemetry.errors.DecodeError: refused: file() reaches outside the history and cannot be used here
    """
    tokens = _tokens(sql)
    solid = [i for i, token in enumerate(tokens) if token.kind != "blank"]
    while solid and tokens[solid[-1]].kind == "end":
        solid.pop()
    if not solid:
        raise _refused("the statement is empty")
    if any(tokens[i].kind == "end" for i in solid):
        raise _refused("one statement at a time")
    opener = next((tokens[i] for i in solid if not tokens[i].is_sign("(")), tokens[solid[0]])
    if not opener.is_word(*OPENERS):
        raise _refused(
            f"{opener.text[:40]!r} cannot be used here; the history is read with SELECT, WITH, "
            "SHOW, DESCRIBE, EXISTS or EXPLAIN"
        )
    _refuse_reach([tokens[i] for i in solid])
    solid = _without_settings(tokens, solid)
    form = ""
    if len(solid) > 2 and tokens[solid[-2]].is_word("FORMAT") and tokens[solid[-1]].kind == "word":
        form = check_format(tokens[solid[-1]].text)
        solid = solid[:-2]
    return Statement(_joined(tokens, solid), form)


def check_format(name: str) -> str:
    """Return the name of an output format that may be used, or raise DecodeError."""
    if not _FORMAT.fullmatch(name):
        raise _refused(f"format {name[:40]!r} is not known here; for example JSON, CSV or Native")
    return name


def _refused(reason: str) -> DecodeError:
    return DecodeError("refused", reason)


def _tokens(sql: str) -> list[_Token]:
    if len(sql) > BYTES_MAX:
        raise _refused(f"the statement has {len(sql)} characters, at most {BYTES_MAX}")
    if "\x00" in sql:
        raise _refused("the statement holds a zero byte")
    found = []
    at = 0
    while at < len(sql):
        match = _TOKEN.match(sql, at)
        if match is None:
            raise _refused(f"cannot read {sql[at : at + 20]!r} at character {at + 1}")
        kind = match.lastgroup or ""
        # A comment parts words as a blank does, and is worth no more.
        found.append(_Token("blank", " ") if kind == "comment" else _Token(kind, match.group()))
        at = match.end()
    return found


def _refuse_reach(solid: list[_Token]) -> None:
    for token, following in zip(solid, solid[1:], strict=False):
        if token.is_word("INTO") and following.is_word("OUTFILE"):
            raise _refused("INTO OUTFILE writes files; read the answer instead")
        if not following.is_sign("("):
            continue
        if token.is_sign("}") or (token.kind == "number" and not token.text.isdigit()):
            raise _refused(f"{token.text[:40]!r} cannot be called")
        if token.kind in ("word", "name"):
            called = token.text.strip('"`').lower()
            if called in _REFUSED_CALLS or (token.kind == "name" and "\\" in called):
                raise _refused(f"{called}() reaches outside the history and cannot be used here")


def _without_settings(tokens: list[_Token], solid: list[int]) -> list[int]:
    """Return the places without `SETTINGS name = value, ...`, wherever such clauses stand."""
    kept: list[int] = []
    at = 0
    while at < len(solid):
        end = _end_of_settings(tokens, solid, at) if tokens[solid[at]].is_word("SETTINGS") else at
        if end > at:
            at = end
        else:
            kept.append(solid[at])
            at += 1
    return kept


def _end_of_settings(tokens: list[_Token], solid: list[int], at: int) -> int:
    """Return the place behind the clause that begins at `at`, or `at` where it is none."""
    end = at
    place = at + 1
    while True:
        if not (
            place + 2 < len(solid)
            and tokens[solid[place]].kind == "word"
            and tokens[solid[place + 1]].is_sign("=")
        ):
            return end
        place += 2
        if tokens[solid[place]].is_sign("-") and place + 1 < len(solid):
            place += 1
        if tokens[solid[place]].kind not in ("number", "text", "word"):
            return end
        place += 1
        end = place
        if place >= len(solid) or not tokens[solid[place]].is_sign(","):
            return end
        place += 1


def _joined(tokens: list[_Token], solid: list[int]) -> str:
    """Return the text of these places; one blank where blanks or left-out tokens were."""
    parts = []
    for before, place in zip([None, *solid], solid, strict=False):
        if before is not None and place != before + 1:
            parts.append(" ")
        parts.append(tokens[place].text)
    return "".join(parts)
