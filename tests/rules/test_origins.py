"""Configured origins are canonical or refused; the allowlist shares with nobody else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from look_alikes import LOOK_ALIKES

from portalshield.rules.origins import CODES, OriginError, OriginPolicy, canonical_origin, origin_faults


def policy(*origins: str, credentials: bool = False, development: bool = False) -> OriginPolicy:
    return OriginPolicy(origins, credentials=credentials, development=development)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        pytest.param("https://app.example.com", "https://app.example.com", id="already-canonical"),
        pytest.param("HTTPS://App.Example.COM", "https://app.example.com", id="case"),
        pytest.param("https://app.example.com:443", "https://app.example.com", id="default-https-port"),
        pytest.param("http://app.example.com:80", "http://app.example.com", id="default-http-port"),
        pytest.param("http://app.example.com:443", "http://app.example.com:443", id="other-schemes-port-stays"),
        pytest.param("https://app.example.com:08443", "https://app.example.com:8443", id="leading-zero-in-port"),
        pytest.param("https://app.example.com/", "https://app.example.com", id="one-slash"),
        pytest.param("https://müller.example", "https://xn--mller-kva.example", id="idn"),
        pytest.param("https://MÜLLER.example", "https://xn--mller-kva.example", id="idn-upper-case"),
        pytest.param("https://xn--mller-kva.example", "https://xn--mller-kva.example", id="punycode-stays"),
        pytest.param("https://例え。jp", "https://xn--r8jz45g.jp", id="ideographic-full-stop"),
        pytest.param("http://localhost:3000", "http://localhost:3000", id="localhost"),
        pytest.param("http://127.0.0.1:5173", "http://127.0.0.1:5173", id="ipv4"),
        pytest.param("http://[2001:DB8:0:0:0:0:0:1]:8080", "http://[2001:db8::1]:8080", id="ipv6"),
        pytest.param("http://[::ffff:192.0.2.1]", "http://[::ffff:c000:201]", id="ipv6-mapped-as-browsers-write-it"),
        pytest.param("https://my_app.example.com", "https://my_app.example.com", id="underscore"),
    ],
)
def test_an_origin_becomes_what_a_browser_sends(text: str, canonical: str) -> None:
    """Canonicalised by the rules of the URL standard, and canonical text is a fixed point."""
    assert canonical_origin(text) == canonical
    assert canonical_origin(canonical) == canonical
    assert policy(text).allows(canonical.encode())


DANGEROUS = [
    pytest.param("", "001", id="empty"),
    pytest.param("   ", "001", id="blank"),
    pytest.param("*", "002", id="lone-star"),
    pytest.param("null", "004", id="null"),
    pytest.param("NULL", "004", id="null-upper-case"),
    pytest.param("https://app.example.com/login", "005", id="path"),
    pytest.param("https://app.example.com//", "005", id="two-slashes"),
    pytest.param("https://app.example.com?x", "005", id="query"),
    pytest.param("https://app.example.com#x", "005", id="fragment"),
    pytest.param("app.example.com", "006", id="scheme-missing"),
    pytest.param("//app.example.com", "006", id="scheme-relative"),
    pytest.param("*.example.com", "006", id="pattern-without-scheme"),
    pytest.param("localhost:3000", "006", id="host-and-port-only"),
    pytest.param("ftp://app.example.com", "007", id="ftp"),
    pytest.param("file://app", "007", id="file"),
    pytest.param("chrome-extension://abcdef", "007", id="extension"),
    pytest.param("*://app.example.com", "007", id="any-scheme"),
    pytest.param("https://user:pw@app.example.com", "008", id="userinfo"),
    pytest.param("https://", "009", id="no-host"),
    pytest.param("https://app.example.com)", "009", id="trailing-garbage"),
    pytest.param("https://app.example.com.", "009", id="trailing-dot"),
    pytest.param("https://app..example.com", "009", id="empty-label"),
    pytest.param("https://app.example.com\\", "009", id="backslash"),
    pytest.param("https://" + "a" * 64 + ".example", "009", id="label-too-long"),
    pytest.param("https://" + "ab." * 90 + "example", "009", id="name-too-long"),
    pytest.param("https://" + "ü" * 70 + ".example", "009", id="idn-label-too-long"),
    pytest.param("http://[zz::1]", "009", id="broken-ipv6"),
    pytest.param("http://1.2.3", "009", id="short-ipv4"),
    pytest.param("http://256.1.1.1", "009", id="ipv4-out-of-range"),
    pytest.param("http://0x7f.1", "009", id="ipv4-odd-spelling"),
    pytest.param("http://[::1", "009", id="open-bracket"),
    pytest.param("http://[::1]x", "009", id="behind-the-bracket"),
    pytest.param("http://[fe80::1%25eth0]", "009", id="zone"),
    pytest.param("http://::1", "009", id="ipv6-without-brackets"),
    pytest.param("https://app.example.com:", "010", id="empty-port"),
    pytest.param("https://app.example.com:0", "010", id="port-zero"),
    pytest.param("https://app.example.com:65536", "010", id="port-too-large"),
    pytest.param("https://app.example.com:443abc", "010", id="port-with-garbage"),
    pytest.param("https://app.example.com:٤٤٣", "010", id="port-in-other-digits"),
    pytest.param("https://app.example.com garbage", "011", id="white-space"),
    pytest.param("https://app.example.com\r\nX: y", "011", id="line-break"),
    pytest.param("https://app\x00.example.com", "011", id="nul"),
    pytest.param("https://app\u200b.example.com", "011", id="zero-width-space"),
    pytest.param("https://app.*.example.com", "012", id="star-in-second-label"),
    pytest.param("https://app.example.*", "012", id="star-as-top-level"),
    pytest.param("https://*.*.example.com", "013", id="two-stars"),
    pytest.param("https://a*b*.example.com", "013", id="two-stars-in-one-label"),
    pytest.param("https://**.example.com", "013", id="double-star"),
    pytest.param("https://*.vercel.app", "014", id="vercel"),
    pytest.param("https://*.netlify.app", "014", id="netlify"),
    pytest.param("https://*.onrender.com", "014", id="render"),
    pytest.param("https://*.pages.dev", "014", id="cloudflare"),
    pytest.param("https://*.herokuapp.com", "014", id="heroku"),
    pytest.param("https://*.github.io", "014", id="github"),
    pytest.param("https://*.web.app", "014", id="firebase"),
    pytest.param("https://*.firebaseapp.com", "014", id="firebase-old"),
    pytest.param("https://*.fly.dev", "014", id="fly"),
    pytest.param("https://*.railway.app", "014", id="railway"),
    pytest.param("https://*.azurewebsites.net", "014", id="azure"),
    pytest.param("https://*.cloudfront.net", "014", id="cloudfront"),
    pytest.param("https://*.VERCEL.app", "014", id="shared-suffix-in-capitals"),
    pytest.param("https://*.co.uk", "014", id="registry"),
    pytest.param("http://localhost:*", "016", id="wildcard-port"),
    pytest.param("https://app.example.com:80*", "016", id="part-of-a-port"),
    pytest.param("https://a.example;https://b.example", "017", id="semicolon"),
    pytest.param("https://a.example,https://b.example", "017", id="comma"),
    pytest.param("https://a.examplehttps://b.example", "017", id="comma-forgotten"),
    pytest.param("https://faß.example", "018", id="sharp-s"),
    pytest.param("https://a\u200db.example", "018", id="joiner"),
    pytest.param("https://mü-*.example.com", "018", id="idn-in-a-pattern-label"),
    pytest.param("https://*.com", "019", id="top-level"),
    pytest.param("https://*", "019", id="any-host"),
    pytest.param("http://*.localhost", "019", id="under-localhost"),
]


@pytest.mark.parametrize(("text", "code"), DANGEROUS)
def test_a_broken_or_dangerous_entry_is_refused_by_its_code(text: str, code: str) -> None:
    """Each mistake has its own code, says which entry, tells what to do, and never repeats the value."""
    with pytest.raises(OriginError) as caught:
        policy("https://fine.example", text)
    error = caught.value
    assert (error.code, error.entry, error.hint) == (code, 2, CODES[code][1])
    assert str(error) == f"entry 2 {CODES[code][0]}"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        pytest.param("*", "003", id="lone-star"),
        pytest.param("https://portal-*-acme.vercel.app", "015", id="pattern-under-a-shared-suffix"),
        pytest.param("https://*.project.pages.dev", "015", id="deeper-under-a-shared-suffix"),
        pytest.param("https://*.vercel.app", "015", id="bare-wildcard"),
    ],
)
def test_credentials_make_some_entries_dangerous(text: str, code: str) -> None:
    """What strangers can register never shares cookies."""
    with pytest.raises(OriginError) as caught:
        policy(text, credentials=True)
    assert caught.value.code == code


def test_at_least_fifteen_codes_are_told_apart() -> None:
    """Every code of the table is reachable but those of canonical single origins, and all texts differ."""
    reached = {param.values[1] for param in DANGEROUS} | {"003", "015"}
    assert reached == set(CODES)
    assert len({message for message, _ in CODES.values()}) == len(CODES)


def test_all_faults_are_told_at_once() -> None:
    """`origin_faults` numbers every wrong entry and leaves the good ones out."""
    faults = origin_faults(["https://a.example", "*", "null"], credentials=False, development=False)
    assert [(fault.entry, fault.code) for fault in faults] == [(2, "002"), (3, "004")]
    assert origin_faults(["https://a.example"], credentials=True, development=False) == ()


@pytest.mark.parametrize("text", ["https://*.example.com", "http://localhost:*"])
def test_a_pattern_is_no_single_origin(text: str) -> None:
    """`canonical_origin` takes exact origins only."""
    with pytest.raises(OriginError):
        canonical_origin(text)


@pytest.mark.parametrize("origin", LOOK_ALIKES)
def test_look_alikes_share_nothing(origin: bytes) -> None:
    """Only byte-equal origins and exact pattern matches pass."""
    assert not policy("https://app.example.com", "https://portal-*-acme.vercel.app").allows(origin)


@pytest.mark.parametrize(
    ("pattern", "origin", "allowed"),
    [
        pytest.param("https://*.example.com", b"https://a.example.com", True, id="one-label"),
        pytest.param("https://*.example.com", b"https://a-1.example.com", True, id="hyphen-and-digit"),
        pytest.param("https://*.example.com", b"https://a.b.example.com", False, id="two-labels"),
        pytest.param("https://*.example.com", b"https://example.com", False, id="no-label"),
        pytest.param("https://*.example.com", b"https://.example.com", False, id="empty-label"),
        pytest.param("https://*.example.com", b"https://evil.com/.example.com", False, id="slash-in-label"),
        pytest.param("https://*.example.com", b"https://a@b.example.com", False, id="at-in-label"),
        pytest.param("https://*.example.com", b"http://a.example.com", False, id="other-scheme"),
        pytest.param("https://*.example.com", b"https://a.example.com:444", False, id="other-port"),
        pytest.param("https://*.example.com:444", b"https://a.example.com:444", True, id="pattern-with-port"),
        pytest.param("https://*.example.com:443", b"https://a.example.com", True, id="pattern-with-default-port"),
        pytest.param("HTTPS://*.Example.com", b"https://a.example.com", True, id="pattern-in-capitals"),
        pytest.param("https://portal-*.example.com", b"https://portal-42.example.com", True, id="open-end"),
        pytest.param("https://portal-*.example.com", b"https://portal-.example.com", False, id="star-is-not-empty"),
        pytest.param("https://*-acme.example.com", b"https://pr7-acme.example.com", True, id="open-start"),
        pytest.param("https://portal-*-acme.vercel.app", b"https://portal-git-x-acme.vercel.app", True, id="preview"),
        pytest.param("https://*.project.pages.dev", b"https://ab12.project.pages.dev", True, id="own-project"),
        pytest.param("https://*.bücher.example", b"https://a.xn--bcher-kva.example", True, id="idn-domain"),
    ],
)
def test_a_pattern_stands_for_part_of_one_label(pattern: str, origin: bytes, allowed: bool) -> None:
    """The `*` is at least one letter, digit or hyphen and never a dot."""
    assert policy(pattern).allows(origin) is allowed


@pytest.mark.parametrize("pattern", ["https://*.example.co.uk", "https://*.example.com"])
def test_a_pattern_on_an_own_domain_may_have_credentials(pattern: str) -> None:
    """A registry such as `co.uk` is shared, a domain registered there is not."""
    origin = pattern.replace("*", "app").encode()
    assert policy(pattern, credentials=True).allows(origin)


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        pytest.param(b"http://localhost", True, id="default-port"),
        pytest.param(b"http://localhost:1", True, id="smallest"),
        pytest.param(b"http://localhost:65535", True, id="largest"),
        pytest.param(b"http://localhost:65536", False, id="too-large"),
        pytest.param(b"http://localhost:0", False, id="zero"),
        pytest.param(b"http://localhost:080", False, id="leading-zero"),
        pytest.param(b"http://localhost:", False, id="empty"),
        pytest.param(b"http://localhost:x", False, id="letters"),
        pytest.param(b"http://localhost.evil.example:80", False, id="other-host"),
        pytest.param(b"https://localhost:3000", False, id="other-scheme"),
    ],
)
def test_any_port_of_localhost_in_development(origin: bytes, allowed: bool) -> None:
    """`http://localhost:*` is a development convenience with serialised ports only."""
    assert policy("http://localhost:*", development=True).allows(origin) is allowed


def test_a_wildcard_port_is_for_loopback_hosts_only() -> None:
    """Also in development no foreign host gets all its ports."""
    with pytest.raises(OriginError) as caught:
        policy("http://app.example.com:*", development=True)
    assert caught.value.code == "016"


def test_an_empty_policy_shares_with_nobody() -> None:
    """No origins, no sharing."""
    assert not policy().allows(b"https://app.example.com")


def test_equal_origins_fold() -> None:
    """The same origin in two spellings is one entry and no mistake."""
    assert policy("https://app.example.com", "https://APP.example.com:443/").allows(b"https://app.example.com")


_LABELS = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=20)


@given(st.text(max_size=60))
def test_any_text_is_canonical_or_an_origin_error(text: str) -> None:
    """No other exception, and what comes out comes out again."""
    try:
        canonical = canonical_origin(text)
    except OriginError:
        return
    assert canonical_origin(canonical) == canonical
    assert canonical.isascii()
    assert canonical == canonical.lower()


@given(st.text(alphabet="htps:/*.-abcom\u00fc1[]@?#, ", max_size=40), st.booleans(), st.booleans())
def test_any_entry_is_compiled_or_an_origin_error(text: str, credentials: bool, development: bool) -> None:
    """Compiling an entry never fails in another way, and `origin_faults` agrees with the constructor."""
    faults = origin_faults([text], credentials=credentials, development=development)
    refused: list[str] = []
    try:
        policy(text, credentials=credentials, development=development)
    except OriginError as error:
        refused.append(error.code)
    assert [fault.code for fault in faults] == refused


@given(_LABELS, _LABELS, _LABELS)
def test_a_pattern_matches_exactly_its_labels(before: str, middle: str, after: str) -> None:
    """Whatever fills the star matches; a dot in it never does."""
    compiled = policy(f"https://{before}*{after}.example.com")
    assert compiled.allows(f"https://{before}{middle}{after}.example.com".encode())
    assert not compiled.allows(f"https://{before}{middle}.{middle}{after}.example.com".encode())


@given(st.binary(max_size=80))
def test_any_field_value_is_judged_without_an_exception(origin: bytes) -> None:
    """The field is attacker text."""
    compiled = policy("https://*.example.com", "http://localhost:*", development=True)
    assert compiled.allows(origin) in (True, False)
