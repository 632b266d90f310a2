"""The redactor: what it finds, what it leaves alone, and that nothing makes it fail."""

from __future__ import annotations

import copy
import ipaddress
import json
import re
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any, NamedTuple
from uuid import UUID

import pytest
import re2
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr

from portalshield.model.secret import Secret
from portalshield.rules import checksums, personal
from portalshield.rules.detectors import Detector
from portalshield.rules.pseudonyms import Pseudonyms
from portalshield.rules.redaction import MAX_ITEMS, REDACTION_ERROR, Redactor
from portalshield.rules.truncation import MAX_TEXT, TRUNCATED

REDACTOR = Redactor()
JWT = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJ1MSJ9.c2lnbmF0dXJlLWlzLWhlcmU"


def fake(*parts: str) -> str:
    """A made-up credential, put together at run time so that no scanner takes this file for a leak."""
    return "".join(parts)


HEX = "0123456789abcdef" * 4
ALNUM = "aB3dE5gH7jK9mN1pQ3sT5vW7yZ9bC1dF3hJ5kL7n" * 3

SECRETS = [
    pytest.param(fake("sk_live", "_", ALNUM[:24]), id="Stripe"),
    pytest.param(fake("rk_test", "_", ALNUM[:24]), id="Stripe restricted"),
    pytest.param(fake("whsec", "_", ALNUM[:32]), id="webhook secret"),
    pytest.param(fake("sk-", "proj-", ALNUM[:48]), id="OpenAI"),
    pytest.param(fake("sk-", "ant-api03-", ALNUM[:80]), id="Anthropic"),
    pytest.param(fake("sbp", "_", HEX[:40]), id="Supabase access token"),
    pytest.param(fake("sb_secret", "_", ALNUM[:31]), id="Supabase secret"),
    pytest.param(fake("AKIA", "IOSFODNN7EXAMPLE"), id="AWS key id"),
    pytest.param(fake("ghp", "_", ALNUM[:36]), id="GitHub"),
    pytest.param(fake("github", "_pat_", ALNUM[:60]), id="GitHub fine-grained"),
    pytest.param(fake("glpat", "-", ALNUM[:20]), id="GitLab"),
    pytest.param(fake("AIza", ALNUM[:35]), id="Google API key"),
    pytest.param(fake("ya29", ".", ALNUM[:60]), id="Google OAuth"),
    pytest.param(fake("GOCSPX", "-", ALNUM[:28]), id="Google client secret"),
    pytest.param(fake("xoxb", "-123456789012-", ALNUM[:24]), id="Slack"),
    pytest.param(fake("https://hooks.slack", ".com/services/T0000/B0000/", ALNUM[:24]), id="Slack webhook"),
    pytest.param(fake("SK", HEX[:32]), id="Twilio"),
    pytest.param(fake("SG", ".", ALNUM[:22], ".", ALNUM[:43]), id="SendGrid"),
    pytest.param(fake("npm", "_", ALNUM[:36]), id="npm"),
    pytest.param(fake("pypi", "-AgEIcHlwaS5vcmc", ALNUM[:50]), id="PyPI"),
    pytest.param(fake("hf", "_", ALNUM[:34]), id="Hugging Face"),
    pytest.param(fake("shpat", "_", HEX[:32]), id="Shopify"),
    pytest.param(fake("dop", "_v1_", HEX), id="DigitalOcean"),
    pytest.param(fake("glsa", "_", ALNUM[:41]), id="Grafana"),
    pytest.param(fake("lin", "_api_", ALNUM[:40]), id="Linear"),
    pytest.param(fake("ntn", "_", ALNUM[:46]), id="Notion"),
    pytest.param(fake("figd", "_", ALNUM[:40]), id="Figma"),
    pytest.param(fake("key", "-", HEX[:32]), id="Mailgun"),
    pytest.param(fake("1234567890", ":", ALNUM[:35]), id="Telegram"),
    pytest.param(fake("M", ALNUM[:23], ".", ALNUM[:6], ".", ALNUM[:27]), id="Discord"),
    pytest.param(fake("ops", "_eyJ", ALNUM[:60]), id="1Password"),
    pytest.param(fake("hvs", ".", ALNUM[:24]), id="Vault"),
    pytest.param(fake("sntrys", "_", ALNUM[:60]), id="Sentry"),
    pytest.param(fake("dckr", "_pat_", ALNUM[:27]), id="Docker"),
    pytest.param(fake("gsk", "_", ALNUM[:52]), id="Groq"),
    pytest.param(fake("xai", "-", ALNUM[:80]), id="xAI"),
    pytest.param(fake("sq0atp", "-", ALNUM[:22]), id="Square"),
    pytest.param(JWT, id="JWT"),
    pytest.param(
        fake("-----BEGIN RSA ", "PRIVATE KEY-----\nMIIEabc123\nxyz+/=\n-----END RSA ", "PRIVATE KEY-----"), id="PEM"
    ),
    pytest.param(fake("-----BEGIN ", "PRIVATE KEY-----\\nMIIEvQabc\\nxyz"), id="PEM cut off and escaped"),
]


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("around", ["{}", "found {} there", "x='{}'", '{{"v": "{}"}}', "a,{},b"])
def test_credential_of_a_known_kind_is_hidden_wherever_it_stands(secret: str, around: str) -> None:
    """No piece of twelve characters of the secret part is left."""
    out = REDACTOR.text(around.format(secret))
    body = secret.split("-----")[-1] if "BEGIN" in secret and "END" not in secret else secret
    assert not any(body[i : i + 12] in out for i in range(len(body) - 11))


PERSONAL = [
    pytest.param("alice.o+tag@mail.example.co.uk", id="e-mail"),
    pytest.param("müller@exämple.de", id="international e-mail"),
    pytest.param("4111 1111 1111 1111", id="card with spaces"),
    pytest.param("5500-0000-0000-0004", id="card with dashes"),
    pytest.param("378282246310005", id="Amex"),
    pytest.param("+49 30 901820", id="E.164 with spaces"),
    pytest.param("+14155552671", id="E.164"),
    pytest.param("0044 20 7946 0958", id="phone with 00"),
    pytest.param("(212) 555-0123", id="bracketed phone"),
    pytest.param("212-555-0123", id="US phone"),
    pytest.param("1.212.555.0123", id="dotted US phone"),
    pytest.param("078-05-1120", id="SSN"),
    pytest.param("DE89 3704 0044 0532 0130 00", id="IBAN with spaces"),
    pytest.param("gb29nwbk60161331926819", id="lower-case IBAN"),
    pytest.param("203.0.113.77", id="IPv4"),
    pytest.param("2001:db8:85a3::8a2e:370:7334", id="IPv6"),
]


@pytest.mark.parametrize("value", PERSONAL)
@pytest.mark.parametrize("around", ["{}", "value {} end", "({})", "a: {}, b", "42, {}; 7"])
def test_personal_data_is_found_by_its_shape(value: str, around: str) -> None:
    """The value does not survive, in any surroundings."""
    assert value not in REDACTOR.text(around.format(value))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("card 4111 1111 1111 1111 ok", "card [CARD:1111] ok", id="card keeps its last four"),
        pytest.param("from 203.0.113.77:80", "from 203.0.113.0/24:80", id="IPv4 keeps its network"),
        pytest.param("2001:db8:85a3::7334", "2001:db8:85a3::/48", id="IPv6 keeps its network"),
        pytest.param("mail a@b.co now", "mail [EMAIL] now", id="e-mail"),
        pytest.param("a 212-555-0123 212-555-0199", "a [PHONE] [PHONE]", id="two phones side by side"),
        pytest.param("born 3 March 1980 in", "born [DATE] in", id="birth date by its word"),
        pytest.param("passport no. C01X00T47 ok", "passport no. [PASSPORT] ok", id="passport by its word"),
        pytest.param("phone 5550123", "phone [PHONE]", id="short number by its word"),
        pytest.param("social 078051120", "social [SSN]", id="bare SSN by its word"),
    ],
)
def test_placeholder_says_what_stood_there(text: str, expected: str) -> None:
    """Placeholders name the kind and keep what is useful and harmless."""
    assert REDACTOR.text(text) == expected


CARRIERS = [
    "password={}",
    "password: {}",
    "password => {}",
    "DB_PASSWORD='{}'",
    '{{"user": {{"password": "{}"}}}}',
    "{{'api_key': '{}', 'n': 1}}",
    '{{\\"client_secret\\": \\"{}\\"}}',
    "https://x.example/cb?access_token={}&a=1",
    "https://x.example/cb?a=1&code={}",
    "next=%2Fcb%3Ftoken%3D{}%26a%3D1",
    "token%253D{}",
    "postgresql://app:{}@db.internal/x",
    "redis://:{}@cache:6379/0",
    "Authorization: Bearer {}",
    "authorization: Basic {}",
    "curl -u admin:{} https://x.example",
    "tool --api-key {} run",
    "CREATE USER a IDENTIFIED BY '{}'",
    "ALTER ROLE a PASSWORD '{}'",
    "DETAIL:  Key (email)=({}) already exists.",
    "[SQL: INSERT ...]\n[parameters: ('{}', 1)]",
    "[(b'host', b'x'), (b'authorization', b'{}')]",
    "<password>{}</password>",
    'Content-Disposition: form-data; name="password"\r\n\r\n{}\r\n--b',
    "Settings(password=SecretStr('{}'))",
    "input_value={{'password': '{}'}}, input_type=dict",
    "Cookie: session={}; theme=dark",
    "\\u0070assword=\\u0022{}\\u0022",
]


@pytest.mark.parametrize("carrier", CARRIERS)
def test_value_is_hidden_by_what_carries_it(carrier: str) -> None:
    """A value without any shape of its own is found by its name, scheme, URL, option or statement."""
    assert "Zq7canary9x" not in REDACTOR.text(carrier.format("Zq7canary9x"))


BENIGN = [
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36",
    "v1.2.3-rc.1+build.5 released 2024-01-02T03:04:05.123Z",
    "epoch 1700000000 1700000000000 1700000000000000000",
    "550e8400-e29b-41d4-a716-446655440000",
    "01ARZ3NDEKTSV4RRFFQ69G5FAV 4bf92f3577b34da6a3ce929d0e0e4736",
    "commit da39a3ee5e6b4b0d3255bfef95601890afd80709",
    "cus_NffrFeUfNV2Hib pi_3MtwBwLkdIwHu7ix28a3tqPa evt_1NG8Du2eZvKYlo2CUI79vXWy",
    "4111111111111112 4242 4242 4242 4241",
    "DE89 3704 0044 0532 0130 01",
    "basic authentication failed; bearer token missing",
    "token_count=5 author=bob max_tokens: 7 primary_key: id",
    "react@18.2.0 user@1000.service icon@2x.png",
    "12:34:56 aa:bb:cc:dd:ee:ff std::vector a::b 127.0.0.1 ::1",
    "http://localhost:8080/a@b",
    "01.02.2024 10:20 took 12.5 ms, 200 OK 1234 bytes",
    "password: None, token=null, secret: ''",
    "666-12-1234 000-12-1234 123-00-1234",
    "total (12) 34 56, rows 1-100 of 2500",
    '{"name": "Caf\\u00e9 M\\u00fcller", "note": "a\\u000ab \\u0007 \\u0000 \\u0085 \\u001F"}',
    "\\u001b[31mERROR\\u001b[0m disk full, \x1b[32mok\x1b[0m %1F%1f",
]


@pytest.mark.parametrize("text", BENIGN)
def test_look_alike_stays_as_it_is(text: str) -> None:
    """Versions, times, ids, failing checksums and prose are not touched."""
    assert REDACTOR.text(text) == text


HOSTILE = [
    "a", "-", "sk-", "0123456789abcdef", "@", "a@", "a@b.", ":", "=", "password=a ", "eyJ", "eyJaaaaaa.", "1", "1 ",
    "4111 ", "1.", "://", "a://b@", '"', '\\"', 'password="', "%41", "%25", "%", "(", "password=(", "<a>", "Key (a)=(",
    "a-", "Bearer ", "digest a=", "AB12 ", "DE89 ", "::1 ", "555-123 ", "-----BEGIN PRIVATE KEY-----", "\\u0041",
    'name="a"\r\n\r\n', "ü@ü.de", "\x00", "[parameters:", "--password a ", "\ud800", "[EMAIL:e_1]", "'\"",
    "password '1' ", "\\u0000", "\\u00e9", "\\u0041", "%41@b.co ", "\\n%41 ", "\\n1.2.3.4 ", "\x1b[mpassword\x1b[m=a ",
    "password=%22a ", "%4112-2001:db8::1 eyJ\\n",
]  # fmt: skip


@pytest.mark.parametrize("unit", HOSTILE)
def test_hostile_repetition_is_bounded_valid_and_stable(unit: str) -> None:
    """64 KB of anything comes out as valid UTF-8 within the limit, and once redacted stays the same."""
    out = REDACTOR.text(unit * (65536 // len(unit)))
    out.encode()
    assert len(out) <= MAX_TEXT
    assert REDACTOR.text(out) == out


PIECES = [
    "password", "=", ":", " ", "'", '"', "\\", "@", ".", "-",
    "[", "]", "(", ")", "{", "}", "EMAIL", "[EMAIL]", "%3D", "%",
    "alice@example.com", "4111111111111111", "+14155552671", "203.0.113.7",
    "Bearer ", "Basic ", "://", "u:p@", "Key (a)=(",
    "token", "-u ", "--password ", "<password>", "</", "\n", "é", "\u2028",
    "eyJhbGci", "1", "12", "/", "?code=", "&", ",", ";",
    "\\u000a", "\\u0041", "\\u00e9", "\\u001f", "\\u", "%0A", "%1F", "%22", "%70", "\\n", "\\r\\n",
    "\x1b[31m", "\\x1b[0m",
    "\\u001b[m", "\x1f", 'name="password"', "123-45-6789",
]  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=24).map("".join))
def test_redacting_twice_is_redacting_once(text: str) -> None:
    """The output is a fixed point, for every mixture of carriers and placeholders."""
    out = REDACTOR.text(text)
    assert REDACTOR.text(out) == out
    assert "[REDACTION_ERROR]" not in out


ESCAPES = st.one_of(
    st.integers(0, 255).map(lambda code: f"\\u{code:04x}"),
    st.integers(0, 255).map(lambda code: f"%{code:02X}"),
    st.sampled_from(["\\n", "\\r\\n", "\\u", "\\u00", "%", "\x1b[1m", "\\e[0m", "\x1f", " ", '"', "a"]),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(ESCAPES, max_size=40).map("".join))
def test_escapes_of_every_byte_are_judged_and_never_fail(text: str) -> None:
    """Whatever is escaped and however often: no failure, stable, and what holds nothing stays as it is."""
    redactor = Redactor()
    out = redactor.text(text)
    assert redactor.errors == 0
    assert redactor.text(out) == out
    assert "a@b.co" not in redactor.text(f"{text} a@b.co")


@given(st.text(st.characters(max_codepoint=255, categories=["L", "Zs", "Cc"]), max_size=60))
def test_json_of_plain_words_stays_as_it_is(text: str) -> None:
    """Letters and controls that `json.dumps` escapes are nothing to hide."""
    assert REDACTOR.text(json.dumps({"a": text})) == json.dumps({"a": text})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("\\u007000\\u0061lice@example.com\\u0007", "[EMAIL]%07", id="every escape is decoded"),
        pytest.param("x=\\u000aDE89370400440532013000", "x=%0A[IBAN]", id="behind an escaped line end"),
        pytest.param(
            "\x1b[36mpassword\x1b[0m=\x1b[35mhunter2\x1b[0m\\n\x1b[1mb\x1b[0m",
            "password=[REDACTED]\\n\x1b[1mb\x1b[0m",
            id="a coloured pair loses its colours, other lines keep theirs",
        ),
        pytest.param(
            'name="password"\\r\\n\\r\\nhunter2\\r\\n--b',
            'name="password"\\r\\n\\r\\n[REDACTED]\\r\\n--b',
            id="a printed form",
        ),
        pytest.param(
            "123-45-6789\\u0041\x1b[31m1.2.3.4\\u003d",
            "[SSN]\\u0041\x1b[31m1.2.3.0/24\\u003d",
            id="a letter abuts a number",
        ),
        pytest.param("pass\x1b[mword='abc\\ndef'\\nend", "[REDACTED]\\n\\nend", id="a value over two lines goes whole"),
        pytest.param("%70assword=%22hunter2 b %70assword=%22hunter3", "[REDACTED] b ", id="quotes in different chunks"),
    ],
)
def test_other_readings_change_only_where_something_was_found(text: str, expected: str) -> None:
    """Escapes, breaks and colours: what is found is replaced in its own chunk or line."""
    assert REDACTOR.text(text) == expected


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=st.characters(), max_size=400))
def test_any_text_comes_out_as_valid_utf8(text: str) -> None:
    """Lone surrogates, controls and all scripts: no exception, encodable, stable."""
    out = REDACTOR.text(text)
    out.encode()
    assert REDACTOR.text(out) == out


def test_megabyte_is_cut_at_a_delimiter_and_half_a_token_goes_whole() -> None:
    """What the cut splits is removed: no beginning of a secret or card is left behind."""
    secret = "sk_live_" + ALNUM
    for offset in range(0, 60, 7):
        text = "x" * (MAX_TEXT - 60 + offset) + " " + secret + " tail" * 100_000
        assert "sk_live" not in REDACTOR.text(text)
    card = "y " * ((MAX_TEXT - 24) // 2) + "4111 1111 1111 1111 " + "z" * 1000
    assert "4111" not in REDACTOR.text(card)
    assert REDACTOR.text(card).endswith(TRUNCATED)


# -- values -----------------------------------------------------------------------------------------------------------


@dataclass
class Account:
    """A dataclass with a secret."""

    name: str
    api_key: str


class Login(BaseModel):
    """A pydantic model with secrets."""

    user: str
    password: str
    pin: SecretStr


class Point(NamedTuple):
    """A named tuple."""

    x: int
    note: str


def test_nested_values_are_covered() -> None:
    """Dicts, lists, tuples, sets, dataclasses, models, bytes, exceptions, secrets and big integers."""
    out = REDACTOR.value(
        {
            "user": {"email": "a@b.co", "ok": True, "password": None, "token_count": 3},
            "list": ["alice@example.com", ("x", 1)],
            "set": {"alice@example.com"},
            "account": Account("n", "k1"),
            "login": Login(user="u", password="p1", pin=SecretStr("1234")),
            "bytes": b"password=hunter2",
            "error": ValueError("bad token=abc123"),
            "secret": SecretStr("s3"),
            "own": Secret("s4"),
            "number": 4111111111111111,
            "alice@example.com": 1,
            b"authorization": "Bearer x",
            "headers": [(b"authorization", b"Bearer y"), ["x-api-key", "z"], (b"host", b"h")],
            "point": Point(1, "alice@example.com"),
            "day": date(2026, 1, 2),
            "id": UUID(int=0),
            "ordered": OrderedDict(password="q"),
        }
    )
    assert out == {
        "user": {"email": "[REDACTED]", "ok": True, "password": None, "token_count": 3},
        "list": ["[EMAIL]", ("x", 1)],
        "set": {"[EMAIL]"},
        "account": {"name": "n", "api_key": "[REDACTED]"},
        "login": {"user": "u", "password": "[REDACTED]", "pin": "[REDACTED]"},
        "bytes": b"password=[REDACTED]",
        "error": "ValueError: bad token=[REDACTED]",
        "secret": "[REDACTED]",
        "own": "[REDACTED]",
        "number": "[CARD:1111]",
        "[EMAIL]": 1,
        "authorization": "[REDACTED]",
        "headers": [(b"authorization", "[REDACTED]"), ["x-api-key", "[REDACTED]"], (b"host", b"h")],
        "point": (1, "[EMAIL]"),
        "day": date(2026, 1, 2),
        "id": UUID(int=0),
        "ordered": {"password": "[REDACTED]"},
    }


def test_callers_objects_are_not_changed() -> None:
    """Redaction works on a copy, at every level."""
    value: dict[str, Any] = {"a": [{"password": "x", "b": {"mail": "a@b.co"}}], "c": {1, 2}}
    before = copy.deepcopy(value)
    REDACTOR.value(value)
    assert value == before


def test_depth_items_cycles_and_text_are_bounded() -> None:
    """A deep, wide, circular or huge value ends; the rest is marked."""
    deep: Any = "x"
    for _ in range(50):
        deep = [deep]
    assert TRUNCATED in json.dumps(REDACTOR.value(deep))
    wide = REDACTOR.value(list(range(5000)))
    assert len(wide) == MAX_ITEMS + 1
    assert wide[-1] == TRUNCATED
    circle: list[Any] = []
    circle.append(circle)
    assert REDACTOR.value(circle) == ["[CYCLE]"]
    huge = Redactor().value(["word " * 1000] * 50, 8192)
    assert sum(map(len, huge)) < 12_000
    assert REDACTOR.value(10**5000) == TRUNCATED


class Hostile:
    """An object whose every face raises."""

    def __repr__(self) -> str:
        raise RuntimeError("password=leak")


class HostileError(Exception):
    """An exception that cannot be printed."""

    def __str__(self) -> str:
        raise RuntimeError("password=leak")


class HostileDict(dict[str, Any]):
    """A mapping that breaks while it is read."""

    def items(self) -> Any:
        def broken() -> Iterator[tuple[str, Any]]:
            yield "a", "alice@example.com"
            raise RuntimeError("password=leak")

        return broken()


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(Hostile(), id="repr raises"),
        pytest.param(HostileError(), id="str raises"),
        pytest.param(HostileDict(a=1), id="items raises"),
        pytest.param({"a": [Hostile()]}, id="nested"),
    ],
)
def test_failure_gives_a_mark_and_a_count_never_the_value(value: Any) -> None:
    """What cannot be redacted is replaced, and counted."""
    redactor = Redactor()
    assert redactor.value(value) == REDACTION_ERROR
    assert redactor.errors == 1


def test_failing_detector_does_not_let_the_text_through() -> None:
    """A user's check that raises hides the whole text."""

    def broken(found: str) -> bool:
        raise RuntimeError(found)

    redactor = Redactor(detectors=[Detector("own", re.compile("abc"), broken)])
    assert redactor.text("xx abc") == REDACTION_ERROR
    assert redactor.errors == 1


def test_own_detector_finds_within_its_bounds() -> None:
    """A user's detector replaces what its check confirms; long matches are left alone; names are checked."""
    redactor = Redactor(detectors=[Detector("badge", re.compile(r"B-\d+"), lambda found: found != "B-1", max_length=8)])
    assert redactor.text("B-77 B-1 B-123456789") == "[BADGE] B-1 B-123456789"
    assert redactor.counts == {"badge": 1}
    with pytest.raises(ValueError, match="letters, digits and underscores"):
        Detector("no good", re.compile("x"))


BADGES = r"\b[A-Z]{1,3}-[0-9]{2,8}\b|(?i:badge|case)[ :#]{1,2}[a-z0-9]{3,12}"


@given(st.text(st.sampled_from("ABab-012 :#éß\n\"'=badgecase"), max_size=80))
def test_engines_agree_on_a_users_detector(text: str) -> None:
    """A detector compiled by RE2 hides what the same one hides that was compiled by `re`."""
    ours, theirs = (
        Redactor(detectors=[Detector("badge", pattern)])
        for pattern in (re.compile(BADGES, re.ASCII), re2.compile(BADGES))
    )
    assert ours.text(text) == theirs.text(text)
    assert ours.counts == theirs.counts


def test_what_an_engine_cannot_read_does_not_pass_unseen() -> None:
    """RE2 reads UTF-8, which has no lone surrogates: the text is hidden, and nothing is raised."""
    redactor = Redactor(detectors=[Detector("badge", re2.compile(BADGES))])
    assert "B-77" not in redactor.text("B-77 \ud800")


def test_fields_and_allowed_fields_extend_the_policy() -> None:
    """Configured names are hidden, allowed names stay, for values and for text."""
    redactor = Redactor(fields=["case_note"], allow_fields=["session_id"])
    assert redactor.value({"caseNote": "x", "session_id": "s1"}) == {"caseNote": "[REDACTED]", "session_id": "s1"}
    assert redactor.text("case_note=x session_id=s1") == "case_note=[REDACTED] session_id=s1"


def test_email_becomes_a_pseudonym_that_stays_put() -> None:
    """With a key the same address gives the same name, and the name is not redacted again."""
    redactor = Redactor(pseudonyms=Pseudonyms(b"k" * 32))
    out = redactor.text("from alice@example.com to ALICE@example.com")
    names = re.findall(r"\[EMAIL:(e_[0-9a-f]{16})\]", out)
    assert len(names) == 2
    assert names[0] == names[1]
    assert redactor.text(out) == out


def test_strict_hides_addresses_random_tokens_and_objects() -> None:
    """Strict mode leaves no network, no opaque token and no repr."""
    redactor = Redactor(mode="strict", pseudonyms=Pseudonyms(b"k" * 32))
    assert redactor.text("203.0.113.7 2001:db8:85a3::1 a@b.co") == "[IP] [IP] [EMAIL]"
    assert redactor.text("x aB3dE5gH7jK9mN1pQ3sT5vW7yZ9b y") == "x [SECRET] y"
    assert redactor.text(f"trace {HEX[:32]}") == f"trace {HEX[:32]}"
    assert redactor.value({"o": object()}) == {"o": "<object>"}


def test_counts_tell_the_detector() -> None:
    """Each detector that changed a text is counted by name, never with a value."""
    redactor = Redactor()
    redactor.text("password=x a@b.co")
    assert redactor.counts == {"pair": 1, "email": 1}


GROUP = st.sampled_from(["", "0", "1", "db8", "2001", "FFFF", "00ab"])


@given(st.lists(GROUP, min_size=3, max_size=8).map(":".join))
def test_ipv6_networks_are_those_of_the_standard_library(address: str) -> None:
    """What is taken for an address is one, and its first 48 bits are printed in the same way."""
    try:
        network = str(ipaddress.IPv6Network(f"{address}/48", strict=False))
    except ValueError:
        network = address
    long_enough = len(address.partition(":")[0]) >= 3 or address.count(":") >= 7
    assert personal.ipv6(address) == (network if long_enough else address)


@pytest.mark.parametrize(
    ("digits", "valid"),
    [
        pytest.param("4111111111111111", True, id="Visa"),
        pytest.param("4111111111111112", False, id="Visa with a wrong digit"),
        pytest.param("6011111111111117", True, id="Discover"),
        pytest.param("3530111333300000", True, id="JCB"),
        pytest.param("30569309025904", True, id="Diners"),
        pytest.param("1234567890123452", False, id="no issuer"),
        pytest.param("0000000000000000", False, id="zeros"),
    ],
)
def test_card_needs_issuer_and_luhn(digits: str, valid: bool) -> None:
    """A number is a card only with an issuer's range and a right check digit."""
    assert checksums.card(digits) is valid


@given(st.integers(0, 10**15 - 1))
def test_luhn_notices_every_single_wrong_digit(number: int) -> None:
    """Exactly one check digit is right."""
    assert sum(checksums.luhn(f"{number:015d}{digit}") for digit in range(10)) == 1
