"""Idempotency keys: a request that comes again under the same `Idempotency-Key` is answered, not processed again.

Refuses with 400 a key that is malformed, or missing where it is required; with 422 `idempotency-key-reused` another
request under a used key; with 409 `in-flight` a repetition while the first is processed, `answer-not-kept` where the
first answer was too large to be kept. Else a repetition gets the first answer, marked `Idempotent-Replayed: true`. A
key belongs to one tenant, subject, method and route; on public routes to an address. Nothing is kept of an answer of
500 or more, 401, 403 or 429, and of a stream without a length.

Does not cover: a handler that outlives `RUNNING_S`, or whose process ends in the middle. Costs one digest over the body
and two questions to the store, for requests that carry a key.
"""

from __future__ import annotations

import hmac
from hashlib import blake2b

from portalshield.model.ending import Ending
from portalshield.model.exchange import Exchange
from portalshield.model.needs import Claim, Claimed, Settle, Taken, Unavailable
from portalshield.model.policy import Idempotent
from portalshield.model.verdicts import Reply, Verdict, problem
from portalshield.rules.idempotency_keys import parse_key
from portalshield.rules.kept_answers import pack, unpack

RUNNING_S = 300.0
"""A request that has not ended by then is taken for lost: its process may have ended."""
KEEP_S = 86_400.0
KEPT_BODY = 65_536
_FORGOTTEN = frozenset((0, 401, 403, 429))
_NOT_KEPT = b""
_REPLAYED = ((b"idempotent-replayed", b"true"),)
_MALFORMED = problem("malformed-request", why="idempotency-key")
_MISSING = problem("idempotency-key-required", why="idempotency-key-missing")
_REUSED = problem("idempotency-key-reused", why="fingerprint")
_RUNNING = problem("in-flight", why="request-running", fields=((b"retry-after", b"2"),))
_GONE = problem("answer-not-kept", why="answer-not-kept")
_KNOWN = problem("in-flight", why="request-known", fields=((b"retry-after", b"2"),))


class IdempotencyStage:
    """The keys of one route. `dry`: repetitions are only reported."""

    layer = "idempotency"
    keeps_body = KEPT_BODY

    def __init__(self, terms: Idempotent, *, dry: bool = False) -> None:
        self._required = terms.required
        self._dry = dry

    def check(self, x: Exchange) -> Verdict:
        """400 for a key that is none, or that is not there where it must be."""
        found = x.headers.get_all(b"idempotency-key")
        if not found:
            return _MISSING if self._required else None
        return None if len(found) == 1 and parse_key(found[0]) is not None else _MALFORMED

    def ask(self, x: Exchange) -> Claim | None:
        """The record of this request; none without a key."""
        found = x.headers.get_all(b"idempotency-key")
        key = parse_key(found[0]) if len(found) == 1 else None
        return Claim(_key(x, key), _fingerprint(x), RUNNING_S) if key is not None else None

    def settle(self, x: Exchange, need: Claim, answer: Claimed | Taken | Unavailable) -> Verdict:
        """Go on with a request that is new; a repetition gets what the first got."""
        if isinstance(answer, Claimed):
            x.claim = (need.key, answer.ticket)
            return None
        if isinstance(answer, Unavailable):
            return problem("unavailable", why=answer.reason, fields=((b"retry-after", b"5"),))
        if not hmac.compare_digest(answer.fingerprint, need.fingerprint):
            return _REUSED
        if answer.answer is None:
            return _RUNNING
        kept = unpack(answer.answer)
        if kept is None:
            return _GONE
        if self._dry:
            return _KNOWN
        status, fields, body = kept
        x.replayed = True
        return Reply(status, (*fields, *_REPLAYED), body)

    def conclude(self, x: Exchange, ending: Ending) -> Settle | None:
        """Keep the answer, or forget the request where it may be tried again."""
        if x.claim is None:
            return None
        (key, ticket), x.claim = x.claim, None
        return Settle(key, ticket, _kept(ending), KEEP_S)


def _kept(ending: Ending) -> bytes | None:
    if ending.status >= 500 or ending.status in _FORGOTTEN:
        return None
    if ending.body is not None:
        return pack(ending.status, ending.fields, ending.body) if len(ending.body) <= KEPT_BODY else _NOT_KEPT
    return _NOT_KEPT if ending.get(b"content-length") else None  # without a length: a stream


def _key(x: Exchange, key: bytes) -> str:
    """Of who is asking, where, and their key: a digest, so that no name stands in a store."""
    principal = x.principal
    who: tuple[str, ...]
    if principal is not None:
        who = ("subject", principal.issuer or "", principal.tenant or "", principal.subject, principal.actor or "")
        credential = b""
    else:
        # Many may share an address. A credential that only the application can read tells some of them apart.
        who = ("address", x.address_key)
        credential = x.headers.get(b"authorization") or b""
    parts = [part.encode("utf-8", "surrogatepass") for part in (x.method, x.template, *who)]
    return _digest([*parts, credential, key], 24).hex()


def _fingerprint(x: Exchange) -> bytes:
    """Of what the request says: path, query, type of the body, and the body."""
    path = x.path.encode("utf-8", "surrogatepass")
    return _digest([path, x.query, x.headers.get(b"content-type") or b"", x.body or b""], 32)


def _digest(parts: list[bytes], size: int) -> bytes:
    digest = blake2b(digest_size=size)
    for part in parts:
        digest.update(len(part).to_bytes(8))
        digest.update(part)
    return digest.digest()
