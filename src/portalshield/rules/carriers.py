"""Secrets found by what surrounds them: `key=value` in all its spellings, URLs, schemes, command lines, SQL.

Each function takes the text and the key policy's verdict and returns the text with the values replaced. Patterns
repeat single character classes possessively from a boundary on, so none of them looks at a character more than a
bounded number of times.
"""

from __future__ import annotations

import re
from collections.abc import Callable

REDACTED = "[REDACTED]"
"""Stands for a value whose name is sensitive."""
MAX_VALUE = 4096
"""Characters of one value that are searched for its end."""

_PRINTED = r"\\{1,3}+(?:r\\{1,3}+n|[nrtbf]|u000[9aAdD])"
_COLOUR = r"(?:\x1b|\\{1,2}(?:x1[bB]|u001[bB]|033|e))\[[0-9;:]{0,20}+[mK]"
COLOUR = re.compile(_COLOUR)
"""What a terminal takes for a colour, and the same as reprs and JSON print it."""
LINE_END = re.compile(f"({_PRINTED})")
"""An end of a line or a blank as JSON and reprs print it."""
BREAK = re.compile(f"({_PRINTED}|{_COLOUR})")
"""Either: no letter of it is a letter of what comes next."""


def without_breaks(text: str) -> str:
    """The text with ends of lines in place of its breaks, as many as they have characters."""
    return BREAK.sub(lambda m: "\n" * len(m[0]), text) if "\\" in text or "\x1b" in text else text


Judge = Callable[[str], bool]
"""Tells of a name whether it is sensitive."""

# What this package writes in brackets: its words are not keys, `[EMAIL:e_..]` is not a pair.
KINDS = frozenset(
    ("EMAIL", "CARD", "PHONE", "IBAN", "SSN", "IP", "JWT", "SECRET", "REDACTED", "PEM", "PASSPORT", "DATE", "CUSTOM")
)

_PAIR = re.compile(
    r"(?<![A-Za-z0-9_])([A-Za-z_][A-Za-z0-9_.\-\[\]]{1,63}+)"
    r"(\\{0,3}[\"']?[ \t]{0,3}(?:=>|:=|==|=|:)[ \t]{0,3})"
)
_HEADER_PAIR = re.compile(r"[(\[]b?[\"']([A-Za-z][A-Za-z0-9_\-]{1,40}+)[\"'],[ ]?(?=b?[\"'])")
_QUOTED = re.compile(r"(?:SecretStr\(|SecretBytes\(|b|u|r|f)?(\\{0,3})([\"'])")
_BARE = re.compile(r"(?:[^\s,;&\"'<>)\]}\\]|\\(?![nrt\"']))++")
_LINE = re.compile(r"[^\r\n\"'\\]{1,4096}+")
_PLACEHOLDER = re.compile(r"\[[A-Z]{2,12}(?::[A-Za-z0-9_]{1,20})?\]")
_HARMLESS = frozenset(("none", "null", "true", "false", "undefined", "nil"))
_WHOLE_LINE = frozenset(
    ("authorization", "proxy-authorization", "cookie", "set-cookie", "http_cookie", "http_authorization")
)
_QUERY_ONLY = frozenset(("code", "key", "state"))
_QUERY_MARKS = ("?", "&")
_CLOSING = {"{": "}", "[": "]", "(": ")"}


def pairs(text: str, sensitive: Judge) -> str:
    """Values under sensitive names in `k=v`, `k: v`, JSON, Python repr, query strings and header lines."""
    out: list[str] = []
    done = 0
    for match in _PAIR.finditer(text):
        if match.end() < done or not _counts(text, match, sensitive):
            continue
        end = _value_end(text, match.end(), match[1].lower())
        if end > match.end():
            out += (text[done : match.end()], _kept(text[match.end() : end]))
            done = end
    if not done:
        return text
    out.append(text[done:])
    return "".join(out)


def _counts(text: str, match: re.Match[str], sensitive: Judge) -> bool:
    key, start = match[1], match.start()
    before = text[start - 1] if start else ""
    if before == "[" and key.partition("]")[0] in KINDS:
        return False
    return sensitive(key) or (key in _QUERY_ONLY and before in _QUERY_MARKS)


def _value_end(text: str, start: int, key: str) -> int:
    """One past the value that begins at `start`; `start` itself if there is nothing to hide."""
    opening = text[start : start + 1]
    quoted = _QUOTED.match(text, start)
    if quoted:
        return _quote_end(text, quoted)
    placeholder = _PLACEHOLDER.match(text, start)
    if placeholder:
        return _after_placeholder(text, placeholder.end())
    if opening in _CLOSING:
        return _bracket_end(text, start, opening)
    bare = (_LINE if key in _WHOLE_LINE else _BARE).match(text, start)
    if bare is None or bare[0].rstrip(".").lower() in _HARMLESS:
        return start
    return bare.end()


def _after_placeholder(text: str, end: int) -> int:
    # What hangs on a placeholder without a gap belongs to the same value: `pw=[SECRET]rest`.
    rest = _BARE.match(text, end)
    return rest.end() if rest else end


def _quote_end(text: str, quoted: re.Match[str]) -> int:
    """The matching quote with the same escapes before it, not escaped once more; none: the bounded rest."""
    closing = quoted[1] + quoted[2]
    limit = min(len(text), quoted.end() + MAX_VALUE)
    position = quoted.end()
    while True:
        found = text.find(closing, position, limit)
        if found < 0:
            return limit
        if text[found - 1] != "\\" or _escapes(text, found) % 2 == 0:
            end = found + len(closing)
            return end + 1 if quoted[0].startswith("Secret") and text[end : end + 1] == ")" else end
        position = found + len(closing)


def _escapes(text: str, position: int) -> int:
    window = text[max(0, position - 16) : position]
    return len(window) - len(window.rstrip("\\"))


def _bracket_end(text: str, start: int, opening: str) -> int:
    """The bracket that closes this one within the bound; none: the bounded rest of the text."""
    closing, depth = _CLOSING[opening], 0
    window = text[start : start + MAX_VALUE]
    for match in re.finditer(rf"[{re.escape(opening + closing)}]", window):
        depth += 1 if match[0] == opening else -1
        if depth == 0:
            return start + match.end()
    return start + len(window)


def _kept(value: str) -> str:
    """The replacement with the value's own quotes around it, so that JSON and reprs stay readable."""
    if _PLACEHOLDER.fullmatch(value):
        return value
    quoted = _QUOTED.match(value)
    if not quoted:
        return REDACTED
    mark = quoted[1] + quoted[2]
    inner = value[quoted.end() :]
    if inner.rstrip(")") == mark:
        return value
    return mark + REDACTED + mark


def header_pairs(text: str, sensitive: Judge) -> str:
    """Values in lists of pairs, as ASGI scopes print them: `(b'authorization', b'Bearer x')`."""
    out: list[str] = []
    done = 0
    for match in _HEADER_PAIR.finditer(text):
        quoted = _QUOTED.match(text, match.end())
        if match.start() < done or quoted is None or not sensitive(match[1]):
            continue
        end = _quote_end(text, quoted)
        out += (text[done : match.end()], _kept(text[match.end() : end]))
        done = end
    out.append(text[done:])
    return "".join(out)


# -- markup and forms -------------------------------------------------------------------------------------------------

_ELEMENT = re.compile(r"<([A-Za-z_][\w.:\-]{1,63}+)>([^<]{1,2048}+)(?=</)")
_PART = re.compile(
    r"name=\\{0,3}+\"([^\"\\\r\n]{1,64}+)\\{0,3}+\"[^\r\n]{0,100}+(?:\r?\n[^\r\n]{1,100}+){0,3}\r?\n\r?\n([^\r\n]{1,2048}+)"
)


def elements(text: str, sensitive: Judge) -> str:
    """The text of XML elements with sensitive names."""
    return _ELEMENT.sub(lambda m: f"<{m[1]}>{REDACTED}" if sensitive(m[1]) else m[0], text)


def parts(text: str, sensitive: Judge) -> str:
    """The first line of multipart parts with sensitive names."""
    return _PART.sub(lambda m: m[0][: m.start(2) - m.start()] + REDACTED if sensitive(m[1]) else m[0], text)


# -- URLs -------------------------------------------------------------------------------------------------------------

_AUTHORITY = re.compile(r"://([^\s\"'<>`]{1,512}+)")


def userinfo(text: str) -> str:
    """User and password of URLs (OpenTelemetry: they must never be recorded)."""
    return _AUTHORITY.sub(_without_userinfo, text)


def _without_userinfo(match: re.Match[str]) -> str:
    rest = match[1]
    host_end = min((i for i in map(rest.find, "/?#") if i >= 0), default=len(rest))
    at = rest.rfind("@", 0, host_end)
    if at < 0 and ":" in rest[:host_end] and not rest[:host_end].rpartition(":")[2].isdigit():
        at = rest.rfind("@")  # a password with a slash in it
    if at <= 0 or (":" not in rest[:at] and at < 20) or rest[:at] == REDACTED:
        return match[0]
    return f"://{REDACTED}{rest[at:]}"


# -- authentication schemes -------------------------------------------------------------------------------------------

_SCHEME = re.compile(
    r"(?<![A-Za-z0-9_])(bearer|basic|negotiate|ntlm|token|apikey)([ ]{1,3}|%20|\+)([A-Za-z0-9._~+/=\-]{6,4096}+)",
    re.IGNORECASE,
)
_DIGEST = re.compile(r"(?<![A-Za-z0-9_])(digest|aws4-hmac-sha256)[ ]{1,3}(?=\w{1,20}=)[^\r\n]{1,2048}+", re.IGNORECASE)


def names_scheme(lowered: bytes) -> bool:
    """True if a lower-case text holds a word without which `schemes` changes nothing."""
    return (
        b"bearer" in lowered
        or b"basic" in lowered
        or b"token" in lowered
        or b"digest" in lowered
        or b"negotiate" in lowered
        or b"ntlm" in lowered
        or b"apikey" in lowered
        or b"hmac-sha256" in lowered
    )


def schemes(text: str) -> str:
    """Credentials behind `Bearer`, `Basic`, `Digest`, `Negotiate`; prose such as "basic authentication" stays."""
    text = _SCHEME.sub(_without_credential, text)
    return _DIGEST.sub(lambda m: f"{m[1]} {REDACTED}", text)


def _without_credential(match: re.Match[str]) -> str:
    scheme, value = match[1].lower(), match[3]
    word = value.rstrip(".").replace("-", "")
    prose = word.isalpha() and (word.islower() or word.istitle() or word.isupper()) and len(word) < 24
    if prose or (scheme in ("token", "apikey") and len(value) < 12):
        return match[0]
    return f"{match[1]}{match[2]}{REDACTED}"


# -- command lines and SQL --------------------------------------------------------------------------------------------

_OPTION = re.compile(
    r"(?<![\w\-])(--?([A-Za-z][\w\-]{1,40}+)[ \t]{1,3})"
    r"(\"[^\"\r\n]{1,256}+\"|'[^'\r\n]{1,256}+'|[^\s\-\"'\[][^\s]{0,255}+)"
)
_USER_OPTION = re.compile(r"(?<![\w\-])((?:-u|--user)[ =]{0,2})([^\s:@\"'/]{1,64}+):(?!//)([^\s\"']{1,256}+)")
_SQL = re.compile(
    r"(?<![A-Za-z0-9_])((?:identified[ ]{1,3}by(?:[ ]{1,3}password)?|password)[ ]{1,3})"
    r"('[^'\r\n]{1,256}+'|\"[^\"\r\n]{1,256}+\")",
    re.IGNORECASE,
)
_DETAIL = re.compile(r"(Key \([^()\r\n]{1,200}+(?:\([^()\r\n]{0,100}+\))?[^()\r\n]{0,100}+\)=\()([^\r\n]{1,2000}+)")
_PARAMETERS = re.compile(r"\[(?:parameters|SQL parameters):[ ]?([^\r\n]{1,4000}+)")


def options(text: str, sensitive: Judge) -> str:
    """Values of command line options: `--password x`, `-u user:x`."""
    text = _OPTION.sub(lambda m: m[1] + REDACTED if sensitive(m[2]) else m[0], text)
    return _USER_OPTION.sub(lambda m: f"{m[1]}{m[2]}:{REDACTED}", text)


def statements(text: str) -> str:
    """Passwords in SQL statements: `IDENTIFIED BY 'x'`, `PASSWORD 'x'`."""
    return _SQL.sub(lambda m: f"{m[1]}{m[2][0]}{REDACTED}{m[2][0]}", text)


def database_details(text: str) -> str:
    """Values in Postgres' DETAIL line `Key (email)=(x) already exists` and in SQLAlchemy's `[parameters: ...]`."""
    if ")=(" in text:
        text = _DETAIL.sub(_without_detail, text)
    if "arameters:" in text:
        text = _PARAMETERS.sub(f"[parameters: {REDACTED}]", text)
    return text


def _without_detail(match: re.Match[str]) -> str:
    end = match[2].rfind(")")
    return f"{match[1]}{REDACTED}{match[2][end:] if end >= 0 else ''}"
