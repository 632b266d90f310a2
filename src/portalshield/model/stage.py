"""What a layer looks like from the flow: plain synchronous hooks, every one optional, looked up once at compile time.

A stage names its layer, keeps nothing between requests and on itself only what it compiled. Each hook is a protocol of
its own; a stage has those it needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from portalshield.model.ending import Ending
    from portalshield.model.exchange import Exchange
    from portalshield.model.head import Head
    from portalshield.model.needs import Need
    from portalshield.model.verdicts import Fields, Problem, Verdict


class Stage(Protocol):
    """What every stage has: the name of its layer."""

    layer: str


class Checks(Protocol):
    """Decides from the exchange alone."""

    def check(self, x: Exchange) -> Verdict:
        """None: go on."""


class Asks(Protocol):
    """Asks for one fact from outside, after its check let the request pass."""

    def ask(self, x: Exchange) -> Need | None:
        """What is missing; None if nothing is."""

    def settle(self, x: Exchange, need: Any, answer: Any) -> Verdict:
        """Decide with the answer to what was asked."""


class Concludes(Protocol):
    """Has something to put in order once the outcome of a request that it let pass is known."""

    def conclude(self, x: Exchange, ending: Ending) -> Need | None:
        """Called once, when the answer is known and before its last byte leaves; what it returns is asked, and the
        answer to that is nobody's verdict any more. It must not assume that its own check or question came to pass."""


class Guards(Protocol):
    """Judges a body that streams to the application unread."""

    def guard(self, x: Exchange) -> Callable[[bytes], Problem | None] | None:
        """A judge of this request's chunks, or None where there is nothing to judge. An empty chunk says that the body
        is over, as far as the server can tell."""


class Judges(Protocol):
    """Reads a whole response of known length before it leaves."""

    def reads(self, status: int, fields: Iterable[tuple[bytes, bytes]]) -> bool | None:
        """Whether it could read an answer with this head; None: such an answer is none of its business. May depend on
        the status, `Content-Type` and `Content-Encoding` alone: by those it is remembered (`Plan.ready`)."""

    def wants(self, x: Exchange, readable: bool, length: bytes) -> int:
        """The declared length of an answer that shall be read; 0: it goes on as it comes. Not asked where `reads` said
        None."""

    def judge(self, x: Exchange, body: bytes) -> Verdict:
        """Decide about its body."""


class Heads(Protocol):
    """Adds to the response head, refusals included; must not assume that its check ran."""

    def head(self, x: Exchange, head: Head) -> None:
        """Add, replace or remove fields."""


class Numbers(Protocol):
    """Adds fields that differ from request to request; its `head` takes the application's own of these names away."""

    def numbers(self, x: Exchange) -> Fields:
        """The fields of this request."""


def hook(stage: Stage, name: str) -> Any:
    """The hook of this name, bound; None where the stage has none. (Asking a runtime protocol takes twenty times as
    long, and start-up asks for every hook of every stage of every policy.)"""
    return getattr(stage, name, None)


def by_address(stage: Stage) -> bool:
    """The stage counts by client address: it only reports where that is the address of a proxy nobody named."""
    return getattr(stage, "by_address", False) is True


def needs_principal(stage: Stage) -> bool:
    """The stage has nothing to judge without a principal (auth in report mode): it is skipped then."""
    return getattr(stage, "needs_principal", False) is True


def asks(stage: Stage) -> bool:
    """The stage may need a fact from outside as it was compiled; one that never does is not even asked."""
    return getattr(stage, "asks", True) is True


def judges_body(stage: Stage) -> bool:
    """The stage has nothing to judge on a request without a body: it is left out there."""
    return getattr(stage, "judges_body", False) is True


def keeps_body(stage: Stage) -> int:
    """The largest answer, in bytes, that the stage wants to be told in `Ending.body`; 0: it has no use for any."""
    return int(getattr(stage, "keeps_body", 0))
