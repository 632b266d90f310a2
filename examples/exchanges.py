"""Real HTTP exchanges with a shielded example: what goes out, and what has to come back."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from portal_server import FRONT_END, PASSWORD, Ask, segment, stripe_signature, token

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
"""A picture of one pixel."""
PROGRAM = b"MZ\x90\x00\x03\x00\x00\x00\x04\x00\x00\x00\xff\xff\x00\x00"
"""How programs for Windows begin."""


def login(email: str) -> Ask:
    """A login with the demonstration password."""
    return _attempt(f"{email} logs in", email, PASSWORD, 200)


def _attempt(title: str, email: str, password: str, expected: int, **more: Any) -> Ask:
    body = json.dumps({"email": email, "password": password}).encode()
    return Ask(title, "POST", "/auth/login", expected, {"Content-Type": "application/json"}, body, **more)


def _post(
    title: str,
    path: str,
    expected: int,
    token: str,
    data: Any,
    content_type: str = "application/json",
    headers: Mapping[str, str] = MappingProxyType({}),
    **more: Any,
) -> Ask:
    body = data if isinstance(data, bytes) else json.dumps(data).encode()
    return Ask(title, "POST", path, expected, {**bearer(token), "Content-Type": content_type, **headers}, body, **more)


def bearer(token: str) -> dict[str, str]:
    """The header that carries a token."""
    return {"Authorization": f"Bearer {token}"}


def own_tenant(owner: str) -> Iterator[Ask]:
    """What the coach of north may do."""
    yield Ask("the owner reads her own clients", "GET", "/tenants/north/clients", 200, bearer(owner))
    north = {**bearer(owner), "X-Tenant-Id": "north"}
    yield Ask("the owner reads her own invoices, named by header", "GET", "/invoices?status=open", 200, north)
    client = {"name": "Gus Ferro", "email": "gus@mail.example"}
    yield _post("the owner adds a client", "/tenants/north/clients", 201, owner, client)


def foreign_tenant(owner: str) -> Iterator[Ask]:
    """The same coach with the id of another practice, and of one that does not exist."""
    yield Ask("another tenant's id in the path", "GET", "/tenants/south/clients", 404, bearer(owner))
    yield Ask("... in the query", "GET", "/sessions?tenant_id=south", 404, bearer(owner))
    yield Ask("... in a header", "GET", "/invoices", 404, {**bearer(owner), "X-Tenant-Id": "south"})
    booking = {"tenant_id": "south", "client_id": 4, "starts_at": "2026-05-04T08:00:00Z"}
    yield _post("... in the body", "/sessions", 404, owner, booking)
    yield Ask("a client of another practice, by number alone", "GET", "/clients/4", 404, bearer(owner))
    yield Ask("a tenant that does not exist looks the same", "GET", "/tenants/atlantis/clients", 404, bearer(owner))


def wrong_credentials(secret: str, assistant: str) -> Iterator[Ask]:
    """Without a token, with bad ones, and with one that grants too little."""
    path, challenge = "/tenants/north/clients", ("www-authenticate",)
    yield Ask("no token", "GET", path, 401, present=challenge)
    expired = token(secret, iat=int(time.time()) - 7200, exp=int(time.time()) - 3600)
    yield Ask("an expired token", "GET", path, 401, bearer(expired), present=challenge)
    yield Ask("a token that somebody else signed", "GET", path, 401, bearer(token(secret[::-1])), present=challenge)
    unsigned = f"{segment({'alg': 'none'})}.{token(secret).split('.')[1]}."
    yield Ask("a token that nobody signed", "GET", path, 401, bearer(unsigned), present=challenge)
    report = "/internal/reports/revenue?tenant_id=south"
    yield Ask("a route whose author forgot the login", "GET", report, 401, present=challenge)
    client = {"name": "Gus Ferro", "email": "gus@mail.example"}
    yield _post("an assistant may not add clients", path, 403, assistant, client, present=challenge)


def browsers(owner: str) -> Iterator[Ask]:
    """Preflights, a cross-site form post, a foreign Host."""
    allow = ("access-control-allow-origin",)
    preflight = (*allow, "access-control-allow-methods", "access-control-allow-headers", "access-control-max-age")
    wanted = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}
    path = "/tenants/north/clients"
    yield Ask("preflight of our front end", "OPTIONS", path, 204, {"Origin": FRONT_END, **wanted}, present=preflight)
    foreign = {"Origin": "https://elsewhere.example"}
    yield Ask("preflight of a foreign origin", "OPTIONS", path, 204, {**foreign, **wanted}, absent=preflight)
    yield Ask("our front end reads", "GET", path, 200, {**bearer(owner), "Origin": FRONT_END}, present=allow)
    riding = {**foreign, "Cookie": "session=1", "Sec-Fetch-Site": "cross-site", "Content-Type": "application/json"}
    yield Ask("a foreign page posts with our cookie", "POST", "/auth/login", 403, riding, b"{}")
    yield Ask("a Host that is not ours", "GET", path, 421, {**bearer(owner), "Host": "elsewhere.example"})


def wrong_requests(owner: str) -> Iterator[Ask]:
    """Too large, of the wrong type, ambiguous, and not what the route takes."""
    path = "/tenants/north/clients"
    large = {"name": "x" * 17_000, "email": "gus@mail.example"}
    yield _post("a body over the route's 16 KB", path, 413, owner, large)
    yield _post("a media type the route does not take", path, 415, owner, b"Gus", "text/plain")
    yield _post("JSON that names a member twice", path, 400, owner, b'{"name":"Gus","name":"Eve"}')
    client = {"name": "Gus Ferro", "is_admin": True}
    yield _post("a member missing, another unexpected", path, 422, owner, client, contains='"/email"')
    north = {**bearer(owner), "X-Tenant-Id": "north"}
    yield Ask("a filter that is none", "GET", "/invoices?status=lost", 422, north, contains='"/status"')


def files(owner: str) -> Iterator[Ask]:
    """A picture, and a program that calls itself a document."""
    path = "/tenants/north/documents"
    yield _upload("the owner uploads a picture", path, 201, owner, ("whiteboard.png", "image/png", PNG))
    yield _upload("a program that is called a PDF", path, 415, owner, ("agreement.pdf", "application/pdf", PROGRAM))


def _upload(title: str, path: str, expected: int, token: str, file: tuple[str, str, bytes]) -> Ask:
    name, media_type, content = file
    head = f'--part\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\nContent-Type: {media_type}'
    form = head.encode() + b"\r\n\r\n" + content + b"\r\n--part--\r\n"
    return _post(title, path, expected, token, form, "multipart/form-data; boundary=part")


def deliveries(secret: str, owner: str) -> Iterator[Ask]:
    """What Stripe sends, once and once more, and what somebody else sends. The answers to the first two must be alike,
    and so must the invoice after each of them: the handler would write down the time of payment anew."""
    event = b'{"type":"payment_intent.succeeded","data":{"object":{"metadata":{"invoice_id":"2"}}}}'
    path, media_type = "/webhooks/stripe", {"Content-Type": "application/json"}
    signed = {"Stripe-Signature": stripe_signature(secret, event), **media_type}
    paid = Ask("the invoice is paid", "GET", "/invoices/2", 200, {**bearer(owner), "X-Tenant-Id": "north"})
    yield Ask("Stripe reports a payment", "POST", path, 200, signed, event)
    yield paid
    yield Ask("the same delivery again: not processed twice", "POST", path, 200, signed, event)
    yield paid
    forged = {"Stripe-Signature": stripe_signature(secret[::-1], event), **media_type}
    yield Ask("somebody else reports a payment", "POST", path, 400, forged, event, contains="invalid-signature")


def invoices(owner: str) -> Iterator[Ask]:
    """A second click sends the invoice again: one invoice, and the first two answers are alike."""
    key = {"Idempotency-Key": '"2026-03-invoice-of-ada"'}
    invoice = {"tenant_id": "north", "client_id": 1, "number": "N-9", "amount_cents": 5000, "due_on": "2026-06-01"}
    mark = ("idempotent-replayed",)
    yield _post("the owner writes an invoice", "/invoices", 201, owner, invoice, headers=key, absent=mark)
    yield _post("she clicks twice: no second invoice", "/invoices", 201, owner, invoice, headers=key, present=mark)
    other = invoice | {"amount_cents": 500_000}
    reused = "idempotency-key-reused"
    yield _post("another invoice under that key", "/invoices", 422, owner, other, headers=key, contains=reused)


def metrics(token: str) -> Iterator[Ask]:
    """What Prometheus reads, and nobody else."""
    yield Ask("the metrics page without its token", "GET", "/metrics", 401, present=("www-authenticate",))
    counter = "portalshield_requests_total"
    yield Ask("Prometheus scrapes it", "GET", "/metrics", 200, bearer(token), contains=counter, logged=False)


def guesses(email: str) -> Iterator[Ask]:
    """Five wrong passwords, and then the right one comes too late for this minute."""
    for number in range(1, 6):
        yield _attempt(f"a wrong password ({number} of 5)", email, f"walk-the-talk-{number}", 401)
    wait = ("retry-after",)
    yield _attempt("the right one, too late", email, PASSWORD, 429, present=wait, contains="login")
