"""The closed set of facts a stage may ask for, and their answers.

A stage does no IO: it returns a need, the walk yields it, the door answers it, synchronously or with `await`. Any
answer except a body may be `Unavailable`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from portalshield.model.principal import Principal


class Unavailable:
    """Whoever should have answered is down, slow or lying. `reason` is for the log: a fixed slug."""

    __slots__ = ("reason",)

    def __init__(self, reason: str) -> None:
        self.reason = reason


# -- the body ---------------------------------------------------------------------------------------------------------


class ReadBody:
    """The body, at most `limit` bytes. Answered by `Body`, `TooLarge`, `Gone` or `TimedOut`.

    `until` is given each chunk in its order, once; True: enough is known, the rest shall stay where it is.
    """

    __slots__ = ("limit", "until")

    def __init__(self, limit: int, until: Callable[[bytes], bool] | None = None) -> None:
        self.limit = limit
        self.until = until


class Body:
    """The bytes of the body, exactly as they came: all of them, or what `until` wanted if it is not `complete`."""

    __slots__ = ("complete", "data")

    def __init__(self, data: bytes, *, complete: bool = True) -> None:
        self.data = data
        self.complete = complete


class TooLarge:
    """More than `limit` bytes came, or were declared; `prefix` is what had been read, `complete` if that was all of it
    (for report mode, which hands everything on)."""

    __slots__ = ("complete", "prefix")

    def __init__(self, prefix: bytes = b"", *, complete: bool = False) -> None:
        self.prefix = prefix
        self.complete = complete


class Gone:
    """The client went away before the body was complete: the application is not called."""

    __slots__ = ()


class TimedOut:
    """The body did not arrive within the read time-out; `prefix` is what had come (for report mode)."""

    __slots__ = ("prefix",)

    def __init__(self, prefix: bytes = b"") -> None:
        self.prefix = prefix


BodyAnswer = Body | TooLarge | Gone | TimedOut

# -- counting ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=True)
class Quota:
    """`amount` requests per `window_s` seconds under `name` (what the RateLimit fields show).

    `strategy` is one of `fixed-window`, `moving-window`, `sliding-window-counter` (the names `limits` gives them).
    """

    name: str
    amount: int
    window_s: int
    strategy: str = "fixed-window"
    brake: bool = False
    """It slows guessing: while the store is down it is counted in this process, never left open."""


class Hit(tuple["tuple[str, Quota, int]", ...]):
    """Count one request against several quotas in one question to the store, one round trip.

    A tuple of `(key, quota, cost)`; cost 0 peeks. All of them are counted, or, when one is spent, none: a refused
    request uses up nothing. Answered by `Counts` or `Unavailable`.
    """

    __slots__ = ()

    @property
    def counters(self) -> tuple[tuple[str, Quota, int], ...]:
        """Itself, under the name that the other questions have for it."""
        return self


class Count:
    """The state of one counter after the question.

    `allowed`: the request fits in; `remaining`: what is left, never below 0; `reset_s`: seconds until the window ends
    (when at least one more request fits in), a float >= 0.
    """

    __slots__ = ("allowed", "remaining", "reset_s")

    def __init__(self, allowed: bool, remaining: int, reset_s: float) -> None:
        self.allowed = allowed
        self.remaining = remaining
        self.reset_s = reset_s


Counts = tuple[Count, ...]
"""One `Count` per counter of the `Hit`, in its order."""


def client_numbers(counts: Counts) -> tuple[int, ...]:
    """What clients are told of counters: for each what remains, and `reset_s` rounded up to whole seconds."""
    return tuple([number for count in counts for number in (count.remaining, ceil(count.reset_s))])


class GiveBack:
    """Take back what a `Hit` counted: of each `(key, quota, cost)` up to `cost`, never more than was used.

    A cost of the whole amount forgets the counter. Answered by `Counts`, what is left afterwards, or `Unavailable`.
    """

    __slots__ = ("counters",)

    def __init__(self, counters: tuple[tuple[str, Quota, int], ...]) -> None:
        self.counters = counters


# -- records of what was processed ------------------------------------------------------------------------------------


class Claim:
    """Process this once: a record of `key` (a digest, no text of the request), unless there is one.

    `fingerprint` (at most 64 bytes) is kept with it, to tell another request under the same key. A record whose holder
    never settles it ends after `running_s`. Answered by `Claimed`, `Taken` or `Unavailable`.
    """

    __slots__ = ("fingerprint", "key", "running_s")

    def __init__(self, key: str, fingerprint: bytes, running_s: float) -> None:
        self.key = key
        self.fingerprint = fingerprint
        self.running_s = running_s


class Claimed:
    """The record is this request's; `ticket` settles it."""

    __slots__ = ("ticket",)

    def __init__(self, ticket: bytes) -> None:
        self.ticket = ticket


class Taken:
    """There is a record already. `answer` is None while its holder runs, empty where it was not kept."""

    __slots__ = ("answer", "fingerprint")

    def __init__(self, fingerprint: bytes, answer: bytes | None) -> None:
        self.fingerprint = fingerprint
        self.answer = answer


class Settle:
    """What became of a claim: keep `answer` for `keep_s`, or forget the record (None), so that it may be tried again.

    Answered by `Settled` or `Unavailable`.
    """

    __slots__ = ("answer", "keep_s", "key", "ticket")

    def __init__(self, key: str, ticket: bytes, answer: bytes | None, keep_s: float) -> None:
        self.key = key
        self.ticket = ticket
        self.answer = answer
        self.keep_s = keep_s


class Settled:
    """`kept` is False where the record had ended and is another request's by now."""

    __slots__ = ("kept",)

    def __init__(self, kept: bool) -> None:
        self.kept = kept


# -- keys and identity ------------------------------------------------------------------------------------------------


class FetchKeys:
    """Fresh keys of one issuer, because a token names an unknown one. Answered by `Refreshed` or `Unavailable`."""

    __slots__ = ("issuer", "kid")

    def __init__(self, issuer: str, kid: str | None) -> None:
        self.issuer = issuer
        self.kid = kid


class Refreshed:
    """The key set was asked anew (or had been, moments ago): look again."""

    __slots__ = ()


class Identify:
    """Who is it? Answered inside the application's own middleware by `Shield(authenticate=...)`."""

    __slots__ = ()


class Identified:
    """The answer of `authenticate`: a principal or nobody."""

    __slots__ = ("principal",)

    def __init__(self, principal: Principal | None) -> None:
        self.principal = principal


class TenantOf:
    """Which tenants does this principal belong to? Answered by `Shield(tenant_of=...)` or its cache."""

    __slots__ = ("principal",)

    def __init__(self, principal: Principal) -> None:
        self.principal = principal


class Tenants:
    """The answer of `tenant_of`: the tenants, possibly none."""

    __slots__ = ("tenants",)

    def __init__(self, tenants: tuple[str, ...]) -> None:
        self.tenants = tenants


class AskOwner:
    """Which tenants own these objects? `questions` are `(owner, name, id)`, each distinct id once.

    Answered by `Owners` or `Unavailable`. An empty tuple stands for more ids than anybody asks for on purpose.
    """

    __slots__ = ("questions",)

    def __init__(self, questions: tuple[tuple[Callable[[str], Any], str, str], ...]) -> None:
        self.questions = questions


class Owners:
    """The owning tenant per question, None where there is none."""

    __slots__ = ("tenants",)

    def __init__(self, tenants: tuple[str | None, ...]) -> None:
        self.tenants = tenants


# -- anything else ----------------------------------------------------------------------------------------------------


class Work:
    """Something that takes milliseconds and would hold up everybody else on an event loop. Answered by `Worked`."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[[], Any]) -> None:
        self.function = function


class Worked:
    """What it returned."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


Need = ReadBody | Hit | GiveBack | Claim | Settle | FetchKeys | Identify | TenantOf | AskOwner | Work
Answer = (
    Body
    | TooLarge
    | Gone
    | TimedOut
    | Counts
    | Claimed
    | Taken
    | Settled
    | Refreshed
    | Identified
    | Tenants
    | Owners
    | Worked
    | Unavailable
)

INSIDE: tuple[type[Any], ...] = (Identify, TenantOf)
"""Needs that only the inner door can answer: the walk is suspended until the application's own middleware has run."""
