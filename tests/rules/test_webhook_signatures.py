"""Webhook signatures: published answers, signers written from the providers' descriptions, and forgeries of each."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from senders import ADDRESS, BODY, FORGERIES, FORM, NOW, SENDERS, Fields, Forge, Sender, b64, judged, mac, replaced

from portalshield.rules.webhook_schemes import MAX_FORM_FIELDS, MAX_SIGNATURES
from portalshield.rules.webhooks import (
    NAMES,
    Delivery,
    SignatureFault,
    UnusableSecretError,
    WebhookVerifier,
    address_spellings,
)

every_sender = pytest.mark.parametrize("sender", SENDERS.values(), ids=SENDERS)
TIMED = {name: sender for name, sender in SENDERS.items() if sender.time}
timed_senders = pytest.mark.parametrize("sender", TIMED.values(), ids=TIMED)


# -- authentic ---------------------------------------------------------------------------------------------------------


@every_sender
def test_what_the_provider_signed_is_authentic(sender: Sender) -> None:
    """Bodies with any bytes, and forms whose names repeat."""
    assert isinstance(sender.judge(sender.sent()), bytes)


def test_every_scheme_has_a_signer() -> None:
    """No scheme is left out of what follows."""
    assert {sender.scheme for sender in SENDERS.values()} == set(NAMES)


@given(body=st.binary(max_size=300))
def test_any_bytes_can_be_signed(body: bytes) -> None:
    """No body is an error of its own: not UTF-8, empty, with NUL."""
    for name in ("standard", "stripe", "github", "slack", "shopify", "hmac"):
        sender = SENDERS[name]
        assert isinstance(sender.judge(sender.sign(sender.secret, body, b"%d" % NOW, sender.digest), body), bytes)


PUBLISHED = [
    pytest.param(
        "standard",
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        [
            (b"webhook-id", b"msg_p5jXN8AQM9LWM0D4loKWxJek"),
            (b"webhook-timestamp", b"1614265330"),
            (b"webhook-signature", b"v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
        ],
        b'{"test": 2432232314}',
        1614265330,
        id="Standard Webhooks, symmetric",
    ),
    pytest.param(
        "standard",
        "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=",
        [
            (b"webhook-id", b"msg_p5jXN8AQM9LWM0D4loKWxJek"),
            (b"webhook-timestamp", b"1614265330"),
            (
                b"webhook-signature",
                b"v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg==",
            ),
        ],
        b'{"test": 2432232314}',
        1614265330,
        id="Standard Webhooks, Ed25519",
    ),
    pytest.param(
        "github",
        "It's a Secret to Everybody",
        [(b"x-hub-signature-256", b"sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17")],
        b"Hello, World!",
        NOW,
        id="GitHub's documentation",
    ),
    pytest.param(
        "slack",
        "8f742231b10e8888abcd99yyyzzz85a5",
        [
            (b"x-slack-request-timestamp", b"1531420618"),
            (b"x-slack-signature", b"v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503"),
        ],
        b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&"
        b"channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&"
        b"response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&"
        b"trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c",
        1531420618,
        id="Slack's documentation",
    ),
    pytest.param(
        "hmac",
        "Jefe",
        [(b"x-signature", b"5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843")],
        b"what do ya want for nothing?",
        NOW,
        id="RFC 4231, case 2",
    ),
]


@pytest.mark.parametrize(("scheme", "secret", "fields", "body", "now"), PUBLISHED)
def test_published_answers(scheme: str, secret: str, fields: Fields, body: bytes, now: int) -> None:
    """What the providers' own pages and suites show as valid is valid, and not with another body."""
    verifier = WebhookVerifier(scheme, (secret,), header="x-signature")
    assert isinstance(judged(verifier, fields, body, now), bytes)
    assert judged(verifier, fields, body + b" ", now) == "signature-wrong"


TWILIO_BODY = b"CallSid=CA1234567890ABCDE&Digits=1234&From=%2B14158675309&To=%2B18005551212&Caller=%2B14158675309"
TWILIO_JSON = b'{"property": "value", "boolean": true}'
TWILIO_HASH = b"0a1ff7634d9ab3b95db5c9a2dfe9416e41502b283a80c7cf19632632f96e6620"
FORM_TYPE = b"application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    ("base", "query", "content_type", "body", "signature"),
    [
        pytest.param("https://mycompany.com", b"", FORM_TYPE, TWILIO_BODY, b"RSOYDt4T1cUTdK1PDd93/VVr8B8=", id="form"),
        pytest.param(
            "https://mycompany.com:1234", b"", FORM_TYPE, TWILIO_BODY, b"RSOYDt4T1cUTdK1PDd93/VVr8B8=", id="no port"
        ),
        pytest.param(
            "http://mycompany.com:1234", b"", FORM_TYPE, TWILIO_BODY, b"Zmvh+3yNM1Phv2jhDCwEM3q5ebU=", id="its port"
        ),
        pytest.param(
            "https://mycompany.com", b"", FORM_TYPE, TWILIO_BODY, b"kvajT1Ptam85bY51eRf/AJRuM3w=", id="default port"
        ),
        pytest.param(
            "http://mycompany.com", b"", FORM_TYPE, TWILIO_BODY, b"0ZXoZLH/DfblKGATFgpif+LLRf4=", id="default of http"
        ),
        pytest.param(
            "https://mycompany.com",
            b"",
            FORM_TYPE,
            b"Sid=CA123&SidAccount=AC123&Digits=5678&Digits=1234",
            b"IK+Dwps556ElfBT0I3Rgjkr1wJU=",
            id="a name that repeats",
        ),
        pytest.param(
            "https://mycompany.com",
            b"&bodySHA256=" + TWILIO_HASH,
            b"application/json",
            TWILIO_JSON,
            b"a9nBmqA0ju/hNViExpshrM61xv4=",
            id="JSON",
        ),
    ],
)
def test_twilios_own_answers(base: str, query: bytes, content_type: bytes, body: bytes, signature: bytes) -> None:
    """The answers of Twilio's own suite, with the token `12345`."""
    fields = {b"x-twilio-signature": [signature], b"content-type": [content_type]}
    addresses = tuple(text + b"/myapp.php?foo=1&bar=2" + query for text in address_spellings(base))
    delivery = Delivery(lambda name: fields.get(name, []), body, addresses)
    assert len(WebhookVerifier("twilio", ("12345",)).verify(delivery, 0.0)) == 32


# -- forgeries ---------------------------------------------------------------------------------------------------------


@every_sender
@pytest.mark.parametrize("forgery", FORGERIES.values(), ids=FORGERIES)
def test_forgeries_do_not_enter(sender: Sender, forgery: Forge) -> None:
    """Whatever is not what the provider signed is a fault, never an exception of another kind."""
    fields, body = forgery(sender)
    assert (fields, body) != (sender.sent(), sender.body)
    assert isinstance(sender.judge(fields, body), str)


def restamped(sender: Sender, time: bytes) -> Fields:
    """An authentic delivery whose time was rewritten without its secret."""
    old = b"%d" % NOW
    return replaced(sender.sent(old), sender.time, lambda value: value.replace(old, time))


@timed_senders
@pytest.mark.parametrize("distance", [pytest.param(-301, id="too old"), pytest.param(301, id="too early")])
def test_only_recent_times_count(sender: Sender, distance: int) -> None:
    """A signature is good for the tolerance, both ways, and not for a second more."""
    near = distance - (1 if distance > 0 else -1)
    assert isinstance(sender.judge(sender.sent(b"%d" % (NOW + near))), bytes)
    assert sender.judge(sender.sent(b"%d" % (NOW + distance))) == "too-old-or-early"
    assert isinstance(sender.judge(sender.sent(b"%d" % (NOW + distance)), now=NOW + distance), bytes)


@timed_senders
def test_the_time_is_signed(sender: Sender) -> None:
    """An old delivery does not become new by another time."""
    assert sender.judge(restamped(sender, b"%d" % (NOW + 1))) == "signature-wrong"


SPELLINGS = [
    pytest.param(b"+1800000000", id="a sign"),
    pytest.param(b"01800000000", id="a leading zero"),
    pytest.param(b"1800000000.0", id="a fraction"),
    pytest.param(b"1_800_000_000", id="underscores"),
    pytest.param(b"1.8e9", id="an exponent"),
    pytest.param(b"0x6b49d200", id="hexadecimal"),
    pytest.param("１８００００００００".encode(), id="other digits"),
    pytest.param(b"1800000000000", id="milliseconds"),
    pytest.param(b"-1", id="negative"),
    pytest.param(b"nan", id="no number"),
    pytest.param(b"18000 00000", id="a blank inside"),
    pytest.param(b"9" * 400, id="a number without an end"),
]


@timed_senders
@pytest.mark.parametrize("time", SPELLINGS)
def test_times_have_one_spelling(sender: Sender, time: bytes) -> None:
    """Even a signed time that is spelt otherwise is refused: two readers could read it differently."""
    assert sender.judge(sender.sent(time)) in ("time-malformed", "signature-malformed")


@timed_senders
def test_a_clock_that_is_no_number_lets_nobody_in(sender: Sender) -> None:
    """Whatever compares false with everything."""
    assert sender.judge(sender.sent(), now=float("nan")) == "too-old-or-early"


# -- lists, versions, rotation -----------------------------------------------------------------------------------------


@every_sender
def test_the_previous_secret_counts_while_it_is_named(sender: Sender) -> None:
    """During a rotation both are good, and both are the same delivery; afterwards the old one is not."""
    old = sender.judge(sender.sent(secret=sender.other), verifier=sender.verifier(sender.secret, sender.other))
    new = sender.judge(sender.sent(), verifier=sender.verifier(sender.secret, sender.other))
    assert isinstance(old, bytes)
    assert old == new
    assert sender.judge(sender.sent(secret=sender.other)) == "signature-wrong"


def with_list(name: str, extra: bytes) -> bytes | str:
    """A delivery whose list of signatures has more in it."""
    sender = SENDERS[name]
    return sender.judge(replaced(sender.sent(), sender.signature, lambda value: extra.replace(b"GOOD", value)))


LISTS = [
    pytest.param("stripe", b"GOOD,v1=" + b"0" * 64, True, id="stripe: a wrong one behind"),
    pytest.param("stripe", b"v1=" + b"0" * 64 + b",GOOD", True, id="stripe: a wrong one in front"),
    pytest.param("stripe", b"GOOD,v0=abc,v2=x", True, id="stripe: other versions"),
    pytest.param("stripe", b"GOOD,v1", False, id="stripe: an item that is none"),
    pytest.param("stripe", b"GOOD,", False, id="stripe: an empty item"),
    pytest.param("stripe", b"GOOD,v1=zz", False, id="stripe: no hexadecimal"),
    pytest.param("stripe", b"GOOD,t=1800000000", False, id="stripe: two times"),
    pytest.param("stripe", b"v0=" + b"0" * 64 + b",t=1800000000", False, id="stripe: only another version"),
    pytest.param("standard", b"v1," + b64(b"0" * 32) + b" GOOD", True, id="standard: a wrong one in front"),
    pytest.param("standard", b"GOOD v2,x v1b,AA==", True, id="standard: other versions"),
    pytest.param("standard", b"GOOD v1a," + b64(b"0" * 64), True, id="standard: one for another key"),
    pytest.param("standard", b"junk GOOD", False, id="standard: an item that is none"),
    pytest.param("standard", b"v1,@@@ GOOD", False, id="standard: no base64"),
    pytest.param("standard", b"v2,x", False, id="standard: only another version"),
]


@pytest.mark.parametrize(("name", "value", "good"), LISTS)
def test_lists_of_signatures(name: str, value: bytes, good: bool) -> None:
    """Other versions are skipped; one good signature is enough; what is malformed refuses the whole list."""
    assert isinstance(with_list(name, value), bytes) is good


@pytest.mark.parametrize("name", ["stripe", "standard"])
def test_lists_have_an_end(name: str) -> None:
    """A list as long as a provider never sends costs nothing."""
    item = b"v1=" + b"0" * 64 if name == "stripe" else b"v1," + b64(b"0" * 32)
    glue = b"," if name == "stripe" else b" "
    assert isinstance(with_list(name, glue.join([b"GOOD", *[item] * (MAX_SIGNATURES - 1)])), bytes)
    assert with_list(name, glue.join([b"GOOD", *[item] * MAX_SIGNATURES])) == "too-many-signatures"


def test_svix_sends_standard_webhooks_under_its_own_name() -> None:
    """Clerk and others do; a mixture of both names is not put together."""
    sender = SENDERS["standard"]
    svix = [(name.replace(b"webhook-", b"svix-"), value) for name, value in sender.sent()]
    assert sender.judge(svix) == sender.judge(sender.sent())
    mixed = [row for row in svix if row[0] != b"svix-signature"] + [sender.sent()[2]]
    assert sender.judge(mixed) == "signature-missing"


def test_an_id_with_a_dot_is_refused() -> None:
    """`a.1` + `2.body` would be signed like `a` + `1.2.body`."""
    sender = SENDERS["standard"]
    moved = [(b"webhook-id", b"msg_1.%d" % NOW), (b"webhook-timestamp", b"1"), sender.sent()[2]]
    assert sender.judge(moved) == "id-malformed"


def test_both_kinds_of_standard_keys_at_once() -> None:
    """A sender may move from a shared secret to a key pair."""
    private = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    public = "whpk_" + b64(private.public_key().public_bytes_raw()).decode()
    sender = SENDERS["standard"]
    text = b"msg_1.%d." % NOW + BODY
    signed = replaced(sender.sent(), sender.signature, lambda value: b"v1a," + b64(private.sign(text)))
    both = sender.verifier(public, sender.secret)
    assert sender.judge(signed, verifier=both) == sender.judge(sender.sent(), verifier=both)
    assert sender.judge(signed) == "signature-wrong"
    relabelled = replaced(signed, sender.signature, lambda value: value.replace(b"v1a", b"v1"))
    assert sender.judge(relabelled, verifier=both) == "signature-wrong"
    short = replaced(signed, sender.signature, lambda value: b"v1a," + b64(b"0" * 20))
    assert sender.judge(short, verifier=both) == "signature-wrong"


# -- identity ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "header"),
    [
        pytest.param("github", b"x-github-delivery", id="github"),
        pytest.param("shopify", b"x-shopify-webhook-id", id="shopify"),
    ],
)
def test_another_unsigned_id_is_the_same_delivery(name: str, header: bytes) -> None:
    """A replay with a fresh id is a replay."""
    sender = SENDERS[name]
    assert sender.judge(replaced(sender.sent(), header, lambda value: b"fresh")) == sender.judge(sender.sent())


def test_shopify_topics_are_told_apart() -> None:
    """One event is sent under several topics with one body: none of them is lost."""
    sender = SENDERS["shopify"]
    created = replaced(sender.sent(), b"x-shopify-topic", lambda value: b"orders/create")
    assert isinstance(sender.judge(created), bytes)
    assert sender.judge(created) != sender.judge(sender.sent())


@pytest.mark.parametrize(
    "topic",
    [
        pytest.param(b"Orders/Paid", id="capitals"),
        pytest.param(b"orders/paid,", id="comma"),
        pytest.param(b"orders paid", id="blank inside"),
        pytest.param(b"", id="empty"),
    ],
)
def test_shopify_topics_have_one_spelling(topic: bytes) -> None:
    """The topic is not signed: a captured delivery must not come again under another spelling of it."""
    sender = SENDERS["shopify"]
    assert isinstance(sender.judge(replaced(sender.sent(), b"x-shopify-topic", lambda value: topic)), str)
    padded = replaced(sender.sent(), b"x-shopify-topic", lambda value: b" " + value + b" ")
    assert sender.judge(padded) == sender.judge(sender.sent())


@pytest.mark.parametrize(
    "extra", [pytest.param(b"GOOD,v0=1", id="another version"), pytest.param(b" GOOD ", id="blanks")]
)
def test_what_is_not_signed_does_not_make_a_new_delivery(extra: bytes) -> None:
    """Nobody makes a copy new by writing into its fields."""
    assert with_list("stripe", extra) == SENDERS["stripe"].judge(SENDERS["stripe"].sent())


def test_twilio_fields_cut_elsewhere_are_the_same_delivery() -> None:
    """Names, values and the address are signed without what stands between them."""
    sender = SENDERS["twilio"]
    first = sender.judge(sender.sent())
    text = "".join(name + value for name, value in sorted(FORM))
    moved = text.encode().replace(b" ", b"+").replace(b"&", b"%26").replace(b"+1415", b"%2B1415")
    assert sender.judge(sender.sent(), moved) == first
    assert judged(sender.verifier(), sender.sent(), b"", url=ADDRESS + text) == first


@pytest.mark.parametrize("name", [name for name in SENDERS if SENDERS[name].scheme != "twilio"])
def test_two_deliveries_have_two_identities(name: str) -> None:
    """Another body or another time is another delivery."""
    sender = SENDERS[name]
    other = sender.sign(sender.secret, sender.body + b" ", b"%d" % NOW, sender.digest)
    assert sender.judge(other, sender.body + b" ") != sender.judge(sender.sent())
    if sender.time:
        assert sender.judge(sender.sent(b"%d" % (NOW + 1))) != sender.judge(sender.sent())


@every_sender
def test_copies_are_known_for_as_long_as_they_could_pass(sender: Sender) -> None:
    """Twice the tolerance, since the time may lie ahead; a day where no time is signed."""
    assert sender.verifier().keep_s == (600 if sender.time else 86_400)


# -- twilio's own ways -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content_type", "body", "query", "code"),
    [
        pytest.param(b"application/json", b"{}", "", "body-not-covered", id="JSON without a digest"),
        pytest.param(b"", b"a=1", "", "body-not-covered", id="no type"),
        pytest.param(b"application/json", b"{}", "&bodySHA256=00&bodySHA256=00", "body-not-covered", id="two digests"),
        pytest.param(b"application/json", b"{}", "&bodySHA256=" + "0" * 64, "signature-wrong", id="another digest"),
        pytest.param(b"application/json", b"{}", "&bodySHA256=zz", "signature-malformed", id="no digest"),
        pytest.param(FORM_TYPE, b"a=1&" * MAX_FORM_FIELDS, "", "too-many-fields", id="a flood of fields"),
        pytest.param(FORM_TYPE, b"%zz=%&==&&\xff", "", "signature-wrong", id="a form that is none"),
    ],
)
def test_twilio_covers_the_body_or_refuses(content_type: bytes, body: bytes, query: str, code: str) -> None:
    """A body that the signature does not cover could be anybody's."""
    sender = SENDERS["twilio"]
    signed = b64(mac(sender.secret.encode(), (ADDRESS + query).encode(), "sha1"))
    fields = [(b"x-twilio-signature", signed), (b"content-type", content_type)]
    assert judged(sender.verifier(), fields, body, url=ADDRESS + query) == code


def test_twilio_needs_the_address() -> None:
    """Without it nothing is authentic."""
    sender = SENDERS["twilio"]
    fields = dict(sender.sent())
    with pytest.raises(SignatureFault, match="address-unknown"):
        sender.verifier().verify(Delivery(lambda name: [fields[name]], sender.body), NOW)


def test_another_address_is_another_text() -> None:
    """What was sent to one endpoint does not enter at another."""
    sender = SENDERS["twilio"]
    assert judged(sender.verifier(), sender.sent(), sender.body, url=ADDRESS + "2") == "signature-wrong"


# -- secrets and settings ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scheme", "secret"),
    [
        pytest.param("stripe", "", id="empty"),
        pytest.param("github", "with\nline", id="a line end"),
        pytest.param("stripe", "sk_live_51H8s7d6f5g4h3j2k1l0", id="an API key of Stripe"),
        pytest.param("github", "ghp_16C7e42F292c6912E7710c838347Ae178B4a", id="a token of GitHub"),
        pytest.param("slack", "xoxb-17653672481-19874698323", id="a token of Slack"),
        pytest.param("shopify", "shpat_0123456789abcdef0123456789abcdef", id="a token of Shopify"),
        pytest.param("standard", "whsec_", id="nothing behind the prefix"),
        pytest.param("standard", "whsec_no base64!", id="no base64"),
        pytest.param("standard", "whpk_" + base64.b64encode(b"short").decode(), id="a short public key"),
        pytest.param("standard", "whsk_" + base64.b64encode(b"0" * 40).decode(), id="a private key of no length"),
        pytest.param("standard", "whsk_" + base64.b64encode(b"0" * 64).decode(), id="two keys that differ"),
    ],
)
def test_unusable_secrets_are_refused_at_start(scheme: str, secret: str) -> None:
    """What could not verify anything is told before the first delivery, and never repeated."""
    with pytest.raises(UnusableSecretError) as raised:
        WebhookVerifier(scheme, (secret,))
    assert not secret or secret not in str(raised.value)


@pytest.mark.parametrize("size", [16, 24, 32, 64, 200])
@pytest.mark.parametrize("prefix", ["whsec_", "v1,whsec_", ""])
def test_secrets_of_any_length(size: int, prefix: str) -> None:
    """As the provider issues them, padded or not, with Supabase's prefix, or bare."""
    raw = bytes(range(256))[:size]
    sender = SENDERS["standard"]
    fields = sender.sent(secret="whsec_" + base64.b64encode(raw).decode())
    for text in (base64.b64encode(raw).decode(), base64.b64encode(raw).decode().rstrip("=")):
        assert isinstance(sender.judge(fields, verifier=WebhookVerifier("standard", (prefix + text,))), bytes)


def test_a_private_key_verifies_like_its_public_one() -> None:
    """`whsk_` is the sender's, but some pages show only that."""
    seed = bytes(range(32))
    public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    for raw in (seed, seed + public):
        WebhookVerifier("standard", ("whsk_" + base64.b64encode(raw).decode(),))


@pytest.mark.parametrize(
    ("scheme", "options"),
    [
        pytest.param("stripes", {}, id="no scheme"),
        pytest.param("hmac", {}, id="no header"),
        pytest.param("hmac", {"header": "x", "digest": "md5"}, id="no digest"),
        pytest.param("hmac", {"header": "x", "encoding": "base32"}, id="no encoding"),
    ],
)
def test_what_is_no_scheme(scheme: str, options: dict[str, str]) -> None:
    """A mistake of whoever configures it, told as one."""
    with pytest.raises(ValueError):  # noqa: PT011
        WebhookVerifier(scheme, ("3f9Kq0aZr7LmXw2TnB8vYc5HdJ1sGe4U",), **options)


@pytest.mark.parametrize(
    ("base", "spelled"),
    [
        pytest.param("https://a.example", (b"https://a.example", b"https://a.example:443"), id="https"),
        pytest.param("http://A.example:8080/", (b"http://a.example", b"http://a.example:8080"), id="a port"),
        pytest.param("https://a.example/in/", (b"https://a.example/in", b"https://a.example:443/in"), id="a prefix"),
        pytest.param("https://[::1]:8443", (b"https://[::1]", b"https://[::1]:8443"), id="IPv6"),
    ],
)
def test_addresses_have_two_spellings(base: str, spelled: tuple[bytes, ...]) -> None:
    """Without and with the port."""
    assert address_spellings(base) == spelled


@pytest.mark.parametrize(
    "base",
    [
        "",
        "a.example",
        "ftp://a.example",
        "https://",
        "https://u:p@a.example",
        "https://a.example?x=1",
        "https://a b/",
        "https://a.example:99999",
        "https://a.example/#x",
        "https://[::1",
        "https://é.example",
        "https://a/é",
    ],
)
def test_what_is_no_address(base: str) -> None:
    """A fixed text, without the address."""
    with pytest.raises(ValueError, match=r"^is no address such as https://api\.example\.com$"):
        address_spellings(base)


# -- anything at all ---------------------------------------------------------------------------------------------------

ANY_NAME = st.sampled_from(
    [
        *sorted({sender.signature for sender in SENDERS.values()} | {sender.time for sender in TIMED.values()}),
        b"webhook-id",
        b"content-type",
        b"svix-signature",
        b"x-shopify-topic",
    ]
)
PIECES = st.lists(
    st.sampled_from(
        [b"v1,", b"v1=", b"v1a,", b"t=", b"v0=", b"sha256=", b"1800000000", b" ", b",", b"=", b"AAAA", b"0a"]
    )
    | st.binary(max_size=6),
    max_size=8,
).map(b"".join)


@given(fields=st.lists(st.tuples(ANY_NAME, PIECES), max_size=6), body=st.binary(max_size=60))
def test_no_input_is_an_exception(fields: Fields, body: bytes) -> None:
    """Malformed is refused; nothing else than the fault is raised, whatever comes."""
    for sender in SENDERS.values():
        assert isinstance(sender.judge(fields, body), str)
