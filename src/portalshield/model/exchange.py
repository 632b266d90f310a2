"""One request while it is being judged: all per-request state lives here, every field has one writer.

Class-level defaults instead of slots: a fresh instance costs one dict and only what is really set (measured faster
than 30 slots). Text is text as the framework routes on it; header names and values are bytes as they came.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from portalshield.model.verdicts import Problem, Reply

if TYPE_CHECKING:
    from portalshield.model.principal import Principal

UNREAD: Any = object()
"""The value of `Exchange.json` while nobody parsed the body."""

_NONE: Mapping[Any, Any] = {}


class HeaderFields(Protocol):
    """The request's header fields by lower-case name; `get_all` keeps repeats."""

    def get(self, name: bytes) -> bytes | None:
        """The value, the last one where a field came more than once."""

    def get_all(self, name: bytes) -> list[bytes]:
        """All values in their order."""

    def __contains__(self, name: bytes) -> bool:
        """A field of this lower-case name is there."""

    def disjoint(self, names: frozenset[bytes]) -> bool:
        """None of these lower-case names is there."""


class Exchange:
    """What is known of a request. The comment behind a field names its writer."""

    # -- the request as it came: the door
    websocket: bool = False
    method: str = "GET"
    path: str = "/"
    """The decoded path that the framework routes on, the root path (script name) included."""
    raw_path: bytes | None = None
    query: bytes = b""
    https: bool = False
    headers: HeaderFields
    peer: str | None = None
    """The socket peer's address, None for a Unix socket."""
    native: Any = None
    """The ASGI scope or the WSGI environ."""
    runtime: Any = None
    """The compiled application that judges it."""
    rest: str = ""
    """What the application routes on, where whoever called has taken a part of the path (root path, script name);
    empty: all of it."""
    has_body: bool = False
    """A body may follow: a length above 0, chunks, or a protocol that does not say."""
    request_id: str = ""
    """Our own random one, or the one that a trusted proxy gave."""
    lot: str = ""
    """Our own, where `request_id` is not: nobody else chooses which share of requests this one belongs to."""
    now: float = 0.0
    """Wall clock at the start, Unix seconds."""
    began_ns: int = 0
    """A monotonic clock at the start, nanoseconds (door)."""
    entered_ns: int = 0
    """The same when the application was called, 0 before that (door)."""
    ended_ns: int = 0
    """The same at the end, where somebody outside the doors reports on it (runtime)."""

    # -- routing: the route table
    template: str = "(unmatched)"
    endpoint: Any = None
    """The handler the policy was applied to; None where no route serves the path."""
    params: Mapping[str, str] = _NONE
    """Path parameters as text, as they stand in the path."""
    arguments: Mapping[str, Any] = _NONE
    """Path parameters as the framework will hand them over."""
    ways: Mapping[int, Any] = _NONE
    """By the id of a router: which of its routes leads to the endpoint (`starlette.listing.Way`)."""
    opaque: bool = False
    """The policy came from patterns or stands at an application that the table cannot look into: a door in there judges
    for itself."""
    served: bool = False
    """A route serves this path with this method."""
    lasting: bool = False
    """What was found depends on method and path alone: it may be remembered for this spelling."""
    confirmed: bool = False
    """The endpoint that really ran is the one the policy was applied to (the confirming route)."""
    reached: bool = False
    """The request arrived at the framework's router."""

    # -- facts: the stage in brackets
    address: str = "local"
    """Client address (door, rules/addresses)."""
    address_key: str = "local"
    """What limits per address count under (door)."""
    address_trusted: bool = True
    """False: a private peer forwards for others and no proxy is configured; address limits only report (door)."""
    origin: bytes | None = None
    """The Origin field if the policy shares with it (cors)."""
    principal: Principal | None = None
    """(auth)"""
    memberships: tuple[str, ...] = ()
    """The tenants of a principal whose credential names none (tenant)."""
    credential: bytes | None = None
    """The bearer token, until it was verified (auth)."""
    media: Any = None
    """The declared type of the body (`rules.media_types.MediaType`), None if it is not exactly one (body)."""
    body: bytes | None = None
    """(body)"""
    body_complete: bool = True
    """False: `body` is only what was read: a form up to its first file, or report mode over the limit (body)."""
    form: Any = None
    """The `FormScanner` of a multipart form whose fields are judged, fed with what was read (body)."""
    form_fault: str | None = None
    """Why such a form cannot be judged, a fixed slug (body)."""
    bytes_in: int = 0
    """Bytes of the body that arrived (door)."""
    gone: bool = False
    """The client went away while the body was read (body)."""
    json: Any = UNREAD
    """The parsed body (json)."""
    owners: Mapping[tuple[str, str], str | None] | None = None
    """Answers about (name, id) that were given already (owners)."""
    covered: bool | None = None
    """A JSON answer to a tenant carried a tenant field that was read (response_guard); None: it was no such answer."""
    judged: bool = False
    """The response met its judge, at the innermost door there is (runtime; an inner door takes it back for another)."""
    judging_ns: int = 0
    """How long they took (runtime)."""
    payload: Any = None
    """The object that `body=Model` validated (schema)."""
    signed: str = ""
    """The key of an authentic delivery's record (webhook)."""
    claim: tuple[str, bytes] | None = None
    """Key and ticket of the record that this request holds (webhook, idempotency)."""
    replayed: bool = False
    """It is a copy, and got the answer of the first (webhook, idempotency)."""
    login: Any = None
    """The counters of an attempt to log in, until its outcome is known (login)."""
    counts: tuple[int, ...] = ()
    """For each limit that was asked, in their order: what remains, and in how many seconds it is whole again (rate)."""

    # -- the result: the flow and the door
    plan: Any = None
    """The compiled plan of the policy that applies (runtime)."""
    walk: Any = None
    """The walk, while it is suspended until the application's own middleware has run (outer door)."""
    pending: Any = None
    """The need the walk is suspended at (outer door)."""
    verdict: Problem | Reply | None = None
    """Why the application was not called (flow)."""
    late: Problem | Reply | None = None
    """A verdict after the application started: the door replaces what comes out (inner door, guard, confirmation)."""
    crash: BaseException | None = None
    """What the application raised (door)."""
    aborted: bool = False
    """The answer had begun when the application failed or the request was refused: it was cut (door)."""
    problem: Problem | None = None
    """The refusal that was answered (door)."""
    layer: str = ""
    """The layer that refused."""
    would_refuse: list[tuple[str, str]] | None = None
    """(layer, slug) of refusals that report mode let pass."""

    def note(self, layer: str, problem: Problem) -> None:
        """Report mode: remember what would have been refused, once."""
        if self.would_refuse is None:
            self.would_refuse = []
        noted = (layer, problem.type.slug)
        if noted not in self.would_refuse:
            self.would_refuse.append(noted)
