"""Whatever an alarm's texts hold, each sink sends it as text: no markup, no commands, no second line.

One alert with a hostile text in every field goes through every sink; what arrives is parsed as the
receiver would parse it, and must say the same as for a harmless alert, but for the texts themselves.
"""

import json
import re
import string
from html.parser import HTMLParser
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alerting.outbox.bodies import BODY_BYTES_MAX, body_of
from alerting.sinks import Parcel
from alerting.sinks.alertmanager import postable
from alerting.sinks.mail import MailOptions, mail, page
from alerting.sinks.netcool import row_set, status_row
from alerting.sinks.pagerduty import event as pagerduty_event
from alerting.sinks.servicenow import event as servicenow_event
from alerting.sinks.snmp import varbinds
from alerting.sinks.syslog import message
from alerting.sinks.tmf642_words import alarm
from alerting.sinks.webhook import cloud_event
from alerting.words.alert import Alert, canonical
from alerting.words.escape import ESCAPES, TEXT_CHARACTERS_MAX, tidied, tidy, token
from alerting.words.templating import fields, fill, load_template, shipped
from alerting.words.wording import facts, story

HOSTILE = (
    "\x00\x1b[31m\x07\r\n.\r\nDATA", "<script>alert(1)</script>", "\"' onload=x ><img src=x>",
    "${title} ${story|html} {{7*7}} {% raw %} $$ %s {0}", "*bold* _i_ `code` <!channel> <@U1>",
    "]\\\" [evil@32473 x=\"y\"", "'; drop table alarm; --", "\ud800 half", "\u202egnp.exe",
    "\ufeffbom \u2028 line", "a" * 3_000_000, "=cmd|' /C calc'!A0", "\x85\x9b31m", "é" * 500,
)  # fmt: skip
texts = st.one_of(
    st.sampled_from(HOSTILE), st.text(max_size=200),
    st.text(alphabet=string.printable + "\u202e\ud800\x00", max_size=100),
)  # fmt: skip
MAY_BE_EMPTY = {"alarmDetails", "proposedRepairedActions", "affectedService", "alarmedObjectType",
                "specificProblem"}  # fmt: skip
NOW_NS = 1_700_000_000_000_000_000


def hostile(text: str, other: str = "x") -> Alert:
    return Alert(
        id="00112233445566aa", change="00112233445566aa-1-raised", kind=text, entity=other,
        state="raised", severity="major", title=text, changed_ns=NOW_NS, raised_ns=NOW_NS, cleared_ns=0,
        occurrence=1, event_type=text, probable_cause=other, source=text, operator=text,
        explain={"why": [text, other], "do": text, "causes": [{"kind": text, "entity": other, "why": text}],
                 "touches": [text], "unit": text, "actual": 1.0, "expected": 2.0, text[:99]: {other[:99]: [text]},
                 "picture": text},
    )  # fmt: skip


alerts = st.builds(hostile, texts, texts)


def harmless(text: str) -> bool:
    return not re.search(
        "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", text
    )


def strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [s for k, v in value.items() for s in (*strings(k), *strings(v))]
    if isinstance(value, list | tuple):
        return [s for v in value for s in strings(v)]
    return []


@given(alerts)
def test_a_tidy_alert_is_harmless_bounded_and_can_be_encoded(alert: Alert) -> None:
    clean = tidy(alert)
    told = strings(msgspec.to_builtins(clean))
    assert all(harmless(text) for text in told)
    assert all(len(text) <= TEXT_CHARACTERS_MAX for text in told)
    assert "\n" not in clean.title
    assert msgspec.json.decode(canonical(clean), type=Alert) == clean
    assert tidy(clean) == clean
    assert (clean.id, clean.change, clean.severity) == (alert.id, alert.change, alert.severity)


@given(alerts)
def test_a_body_is_read_as_tidy_as_if_each_text_were_looked_at(alert: Alert) -> None:
    body = body_of(alert)
    parcel = Parcel(tidied(body), "k")
    assert parcel.json == canonical(tidy(msgspec.json.decode(body, type=Alert)))
    assert parcel.alert == tidy(msgspec.json.decode(body, type=Alert))


@given(alerts)
def test_whatever_it_holds_the_outbox_can_keep_it(alert: Alert) -> None:
    body = body_of(alert)
    assert len(body.encode()) <= BODY_BYTES_MAX
    assert msgspec.json.decode(body, type=Alert).id == alert.id


@given(alerts)
def test_json_sinks_say_the_same_fields(alert: Alert) -> None:
    clean = tidy(alert)
    plain = hostile("plain", "plain")
    for make in (
        lambda a: cloud_event(Parcel(a, "k"), now_ns=NOW_NS), lambda a: pagerduty_event(a, "key"),
        servicenow_event, lambda a: row_set(status_row(a)), lambda a: alarm(a, "http://x"),
        lambda a: postable(a, now_ns=NOW_NS),
    ):  # fmt: skip
        sent = json.loads(json.dumps(make(clean)).encode())  # type: ignore[no-untyped-call]
        assert all(harmless(text) for text in strings(sent))
        expected = json.loads(json.dumps(make(plain)))  # type: ignore[no-untyped-call]
        if isinstance(sent, dict) and "explain" not in json.dumps(sent):
            assert set(sent) >= set(expected) - MAY_BE_EMPTY
    assert len(json.dumps(pagerduty_event(clean, "key"))) < 512 * 1024
    assert all(
        isinstance(v, str) for v in json.loads(servicenow_event(clean)["additional_info"]).values()
    )


@pytest.mark.parametrize("name", shipped())
@given(alert=alerts)
def test_templates_of_json_keep_their_shape(name: str, alert: Alert) -> None:
    template = load_template(name)

    def shape(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: shape(v) for k, v in value.items()}
        return [shape(v) for v in value] if isinstance(value, list) else type(value)

    made = json.loads(template.render(fields(tidy(alert))))
    assert shape(made) == shape(template.document)
    assert all(harmless(text) for text in strings(made))
    if name == "slack":
        for block in re.findall(r'"mrkdwn", "text": "((?:[^"\\]|\\.)*)"', json.dumps(made)):
            assert not re.search(r"<[!@#h]", block)


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, attrs))


def tags(page_text: str) -> set[str]:
    parser = Tags()
    parser.feed(page_text)
    assert all(not any(name.startswith("on") for name, _ in attrs) for _, attrs in parser.seen)
    return {tag for tag, _ in parser.seen}


@given(alerts)
def test_html_holds_our_tags_alone(alert: Alert) -> None:
    assert tags(page(tidy(alert))) <= {"html", "body", "h3", "table", "tr", "th", "td"}
    for way in ("", "|plain", "|mrkdwn", "|markdown", "|json"):
        made = fill(f"<p>${{title{way}}}</p>", {"title": tidy(alert).title}, "html")
        assert tags(made) == {"p"}


@given(alerts)
def test_mail_headers_are_one_line_each_and_the_body_ends_nothing(alert: Alert) -> None:
    options = MailOptions(sender="a@example.net", to=("b@example.net",))
    made = mail(Parcel(tidy(alert), "key"), options, now_ns=NOW_NS)
    data = made.as_bytes()
    head = data.partition(b"\r\n\r\n")[0].decode("ascii")
    names = [
        line.partition(":")[0] for line in head.split("\r\n") if not line.startswith((" ", "\t"))
    ]
    assert set(names) <= {
        "From", "To", "Subject", "Date", "Message-ID", "References", "In-Reply-To", "Auto-Submitted",
        "X-Tocsin-Change", "MIME-Version", "Content-Type",
    }  # fmt: skip
    assert names.count("Subject") == 1


@given(alerts)
def test_syslog_is_one_line_with_two_elements(alert: Alert) -> None:
    data = message(tidy(alert), hostname="host", facility=16)
    text = data.decode()
    assert "\n" not in text
    element = r'\[[!-~]+(?: [A-Za-z_]+="(?:[^"\\\]]|\\["\\\]])*")*\]'
    match = re.fullmatch(
        rf"<(\d+)>1 (\S+) host tocsin - (\S{{1,32}}) ({element}{element}) \ufeff(.*)", text
    )
    assert match, text
    assert match[1] == str(16 * 8 + 3)


@given(alerts)
def test_netcool_and_snmp_take_what_fits(alert: Alert) -> None:
    clean = tidy(alert)
    assert status_row(clean)["Identifier"] == f"tocsin {alert.id}"
    for oid, kind, value in varbinds(clean):
        assert re.fullmatch(r"[0-9.]+", oid)
        if kind == "text":
            assert len(value) <= 255
            value.decode()


@given(alerts)
def test_what_people_read_names_no_field_twice(alert: Alert) -> None:
    clean = tidy(alert)
    assert all(isinstance(value, str) for value in facts(clean).values())
    assert harmless(story(clean))


@given(texts)
def test_a_template_runs_nothing_that_a_value_holds(text: str) -> None:
    value = tidy(hostile(text)).title
    assert fill("[${title}]", {"title": value}, "plain") == f"[{value}]"


@given(texts)
def test_a_word_for_a_command_line_is_plain_or_refused(text: str) -> None:
    try:
        word = token(text)
    except ValueError:
        return
    assert re.fullmatch(r"[A-Za-z0-9._:/+-]+", word)
    assert not word.startswith("-")


def test_every_escape_is_covered() -> None:
    assert set(ESCAPES) == {"plain", "json", "html", "mrkdwn", "markdown", "token"}


def utf16(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


@given(alerts)
def test_shipped_templates_keep_to_what_their_receivers_take(alert: Alert) -> None:
    """Slack: reference of blocks (header 150, section 3000, its fields 2000); Teams: 28 KB a message;
    JSM: Create alert (message 130, description 15000, tags 50, details 8000). More is refused for good."""
    known = fields(tidy(alert))
    slack = json.loads(load_template("slack").render(known))
    header, short, section, context = slack["attachments"][0]["blocks"]
    assert utf16(slack["text"]) <= 4000
    assert utf16(header["text"]["text"]) <= 150
    assert all(utf16(one["text"]) <= 2000 for one in short["fields"])
    assert utf16(section["text"]["text"]) <= 3000
    assert utf16(context["elements"][0]["text"]) <= 2000
    assert len(load_template("teams").render(known)) <= 28 * 1024
    jira = json.loads(load_template("jira").render(known))
    assert utf16(jira["message"]) <= 130
    assert utf16(jira["description"]) <= 15_000
    assert all(utf16(tag) <= 50 for tag in jira["tags"])
    assert sum(map(utf16, jira["details"].values())) <= 8000


@given(texts, st.integers(1, 400), st.sampled_from(["plain", "html", "mrkdwn", "markdown", "json"]))
def test_a_limit_cuts_a_text_and_no_escape_in_two(text: str, limit: int, escape: str) -> None:
    text = tidy(hostile(text)).title
    made = fill(f"${{title:{limit}|{escape}}}", {"title": text}, "plain")
    whole = ESCAPES[escape](text)
    assert utf16(made) <= max(limit, utf16(ESCAPES[escape]("…")))
    if utf16(whole) <= limit:
        assert made == whole
        return
    assert made.endswith(ESCAPES[escape]("…"))
    kept = made.removesuffix(ESCAPES[escape]("…"))
    assert any(ESCAPES[escape](text[:n].rstrip()) == kept for n in range(limit + 1))


def test_a_limit_leaves_little_out_that_would_fit() -> None:
    for text in ("x" * 5000, "&" * 5000, "\U0001f525" * 5000, "*" * 5000):
        made = fill("${title:1900|mrkdwn}", {"title": text}, "plain")
        assert 1900 - 12 <= utf16(made) <= 1900
