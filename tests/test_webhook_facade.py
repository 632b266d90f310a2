"""`portalshield.webhooks.verify`, without an application around it."""

from __future__ import annotations

import hashlib
import hmac
import time

import pytest
from starlette.datastructures import Headers
from werkzeug.datastructures import Headers as WerkzeugHeaders

from portalshield import webhooks

SECRET = "3f9Kq0aZr7LmXw2TnB8vYc5HdJ1sGe4U"
BODY = b'{"id":"evt_1"}'


def signature(at: int, secret: str = SECRET) -> str:
    """As Stripe signs."""
    return f"t={at},v1={hmac.new(secret.encode(), b'%d.' % at + BODY, hashlib.sha256).hexdigest()}"


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"Stripe-Signature": signature(1000)}, id="a dict"),
        pytest.param([("stripe-signature", signature(1000)), ("host", "a")], id="pairs"),
        pytest.param([(b"Stripe-Signature", signature(1000).encode())], id="raw ASGI fields"),
        pytest.param(Headers({"stripe-signature": signature(1000)}), id="Starlette"),
        pytest.param(WerkzeugHeaders([("Stripe-Signature", signature(1000))]), id="Werkzeug"),
    ],
)
def test_headers_of_any_kind(headers: webhooks.Headers) -> None:
    """Names in any case, as text or bytes."""
    assert webhooks.verify("stripe", SECRET, headers, BODY, 1000)
    assert not webhooks.verify("stripe", SECRET, headers, BODY + b" ", 1000)


def test_the_clock_is_read() -> None:
    """Without `now` it is the system's; what was signed in 1970 is too old."""
    assert webhooks.verify("stripe", SECRET, {"stripe-signature": signature(int(time.time()))}, BODY)
    assert not webhooks.verify("stripe", SECRET, {"stripe-signature": signature(1000)}, BODY)
    assert webhooks.verify("stripe", SECRET, {"stripe-signature": signature(1000)}, BODY, 2000, tolerance_s=1000)


def test_several_secrets() -> None:
    """The current and the previous one."""
    old = {"stripe-signature": signature(1000, "the one before, long enough")}
    assert webhooks.verify("stripe", (SECRET, "the one before, long enough"), old, BODY, 1000)
    assert not webhooks.verify("stripe", SECRET, old, BODY, 1000)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"stripe-signature": "\u20ac\ud800"},
        {"stripe-signature": "\xff"},
        [("stripe-signature", signature(1000)), ("Stripe-Signature", signature(1000))],
    ],
)
def test_whatever_comes_in_is_false(headers: webhooks.Headers) -> None:
    """No header raises anything."""
    assert webhooks.verify("stripe", SECRET, headers, BODY, 1000) is False


def test_what_the_caller_got_wrong_raises() -> None:
    """A scheme, secret or address that is none."""
    with pytest.raises(ValueError, match="is none of"):
        webhooks.verify("strype", SECRET, {}, BODY)
    with pytest.raises(webhooks.UnusableSecretError):
        webhooks.verify("stripe", "", {}, BODY)
    with pytest.raises(webhooks.UnusableSecretError):
        webhooks.verify("stripe", (), {}, BODY)
    with pytest.raises(ValueError, match="url="):
        webhooks.verify("twilio", SECRET, {}, BODY)


@pytest.mark.parametrize(
    "url", ["https://mycompany.com/myapp.php?foo=1&bar=2", "https://mycompany.com:443/myapp.php?foo=1&bar=2"]
)
def test_the_address_as_it_was_called(url: str) -> None:
    """Twilio's own answer, with and without the port."""
    fields = {"X-Twilio-Signature": "RSOYDt4T1cUTdK1PDd93/VVr8B8=", "Content-Type": "application/x-www-form-urlencoded"}
    body = b"CallSid=CA1234567890ABCDE&Digits=1234&From=%2B14158675309&To=%2B18005551212&Caller=%2B14158675309"
    assert webhooks.verify("twilio", "12345", fields, body, url=url)
    assert not webhooks.verify("twilio", "12345", fields, body, url=url + "3")
    assert not webhooks.verify("twilio", "12345", fields, body, url="https://mycompany.com")


def test_the_hmac_scheme_is_described_by_keywords() -> None:
    """Header, digest, encoding and time."""
    mac = hmac.new(SECRET.encode(), b"1000." + BODY, "sha512").hexdigest()
    fields = {"X-Sig": mac, "X-Time": "1000"}
    how = {"header": "x-sig", "digest": "sha512", "time_header": "x-time"}
    assert webhooks.verify("hmac", SECRET, fields, BODY, 1000, **how)  # type: ignore[arg-type]
    assert not webhooks.verify("hmac", SECRET, fields, BODY, 2000, **how)  # type: ignore[arg-type]
