"""The login brake: failed attempts are counted per account and per address, and refused before the handler is asked.

Each attempt is counted before the handler runs, so that guesses sent at once do not slip through, and given back when
it was none: a success clears the account's count and takes back one from the address's; an answer that says nothing
about the guess (404, 409, 503) takes back one from both. What the answer to a refused attempt says does not depend on
whether the account exists. Refused attempts count nothing, so an account is free again after its window, whoever goes
on guessing.

A failed attempt is an answer of 400, 401, 403 or 422; a form post answered by an HTML page or sent back to the page it
came from; and an attempt whose answer never came. Only 2xx and 3xx are a success: an error that a client can bring
about must not clear an account's count.

Does not cover: applications that answer a wrong password with 200 and JSON or send it on to another page without
`error` in its address; names that stand in a header field (Basic). Costs one question before the handler and, unless
the attempt failed, one after it.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil
from typing import Literal
from urllib.parse import quote, unquote, urljoin, urlsplit

from portalshield.model.ending import Ending
from portalshield.model.exchange import Exchange
from portalshield.model.needs import Counts, GiveBack, Hit, Quota, Unavailable, client_numbers
from portalshield.model.verdicts import Verdict, problem, unavailable
from portalshield.rules.account_names import AccountKeys, NameTooLongError
from portalshield.rules.addressed import TooManyPairsError, in_query
from portalshield.rules.body_ids import UnreadableError, in_body
from portalshield.rules.media_types import parse_media_type

MAX_ACCOUNTS = 16
"""Distinct accounts that one request may name; all of them are counted, whichever the handler takes."""
_FAILED = frozenset((0, 400, 401, 403, 422))
_ATTEMPTS = frozenset(("POST", "PUT", "PATCH", "DELETE"))
_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
_FLOOD = problem("malformed-request", why="login-too-many-accounts")
_UNREADABLE = problem("malformed-request", why="login-unreadable")
_LONG = problem("malformed-request", why="login-name-too-long")
_FILE = problem("malformed-request", why="login-with-file")

Counter = tuple[str, Quota, int]


class LoginStage:
    """The brake of routes whose body names the account in `field`. `quotas` hold per address and per account."""

    layer = "rate"

    def __init__(self, field: str, quotas: tuple[Quota, ...], keys: AccountKeys) -> None:
        self.quotas = quotas
        self.names = frozenset((field,))
        self._keys = keys
        self._spent = [quota.name for quota in quotas]

    def check(self, x: Exchange) -> Verdict:
        """Find the accounts; 400 where two readers could find different ones."""
        if x.method not in _ATTEMPTS:  # the page with the form: it fails nothing, and its 200 is no success
            return None
        if x.form_fault is not None or (x.form is not None and (x.form.late or x.form.reached_file)):
            return _FILE if x.form_fault is None else problem("malformed-request", why=f"multipart-{x.form_fault}")
        try:
            accounts = {key: None for name in self._named(x) if (key := self._keys.key(name))}
        except TooManyPairsError:
            return _FLOOD
        except UnreadableError:
            return _UNREADABLE
        except NameTooLongError:
            return _LONG
        if len(accounts) > MAX_ACCOUNTS:
            return _FLOOD
        x.login = tuple(self._counters(x.address_key, accounts))
        return None

    def ask(self, x: Exchange) -> Hit | None:
        """The counters of the address and of the account: all of them are charged, or none."""
        return Hit(x.login) if x.login is not None else None

    def settle(self, x: Exchange, need: Hit, answer: Counts | Unavailable) -> Verdict:
        """429 where the address or the account has no attempt left, 503 where nobody can say."""
        if isinstance(answer, Unavailable):
            x.login = None
            return unavailable(answer.reason)
        if all(count.allowed for count in answer):
            x.counts += client_numbers(answer[: len(self.quotas)])
            return None
        x.login = None
        wait_s = max(1, *[ceil(count.reset_s) for count in answer if not count.allowed])
        # The same for address and account: whose attempts are spent is nobody's business.
        x.counts += (0, wait_s) * len(self.quotas)
        fields = ((b"retry-after", b"%d" % wait_s),)
        return problem("rate-limited", why="login-attempts-spent", fields=fields, limit=self._spent)

    def conclude(self, x: Exchange, ending: Ending) -> GiveBack | None:
        """Give back what was no failed attempt."""
        counters: tuple[Counter, ...] | None = x.login
        x.login = None
        if counters is None:
            return None
        outcome = outcome_of(x, ending)
        if outcome == "failed":
            return None
        first = len(self.quotas)
        # Which of several accounts was entered nobody can say: it must not clear the count of the others.
        if outcome == "unknown" or len(counters) > 2 * first:
            return GiveBack(counters)
        cleared = tuple([(key, quota, quota.amount) for key, quota, _ in counters[first:]])
        return GiveBack(counters[:first] + cleared)

    def _counters(self, address: str, accounts: dict[str, None]) -> Iterator[Counter]:
        for quota in self.quotas:
            yield f"login\x1dip\x1d{address}", quota, 1
        for account in accounts:
            for quota in self.quotas:
                yield f"login\x1daccount\x1d{account}", quota, 1

    def _named(self, x: Exchange) -> Iterator[str]:
        """Every value of the field, wherever a handler might look for it."""
        if x.query:
            yield from (value for _, value in in_query(x.query, self.names))
        if x.form is not None:
            yield from (value for name, value in x.form.fields if name in self.names)
        elif x.body:
            for _, value in in_body(x.body, x.json, x.headers.get(b"content-type"), self.names, cut=True):
                yield from _texts(value)


def _texts(value: object) -> Iterator[str]:
    """A text, a number (telephones), or whatever of them stands in a list or an object."""
    left = [value]
    while left:
        item = left.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, (list, dict)):
            left += item.values() if isinstance(item, dict) else item
        elif isinstance(item, float) and item.is_integer():
            yield str(int(item))  # as a lax model reads it
        elif isinstance(item, int) and not isinstance(item, bool) and -(10**64) < item < 10**64:
            yield str(item)


# -- what an answer says about the attempt ----------------------------------------------------------------------------


def outcome_of(x: Exchange, ending: Ending) -> Literal["failed", "succeeded", "unknown"]:
    """Did the application let them in?"""
    status = ending.status
    if status in _FAILED:
        return "failed"
    if not 200 <= status < 400:
        return "unknown"
    if _is_form(x) and (_shows_page(ending) if status < 300 else _sends_back(x, ending)):
        return "failed"
    return "succeeded"


def _is_form(x: Exchange) -> bool:
    """A form, or what a handler that looks into the query too may take for one."""
    media = parse_media_type(x.headers.get(b"content-type") or b"")
    return media is None or media.essence in _FORMS or bool(x.query)


def _shows_page(ending: Ending) -> bool:
    """A login that renders pages shows the form again."""
    return ending.status == 200 and ending.get(b"content-type").lower().startswith((b"text/html", b"application/xhtml"))


def _sends_back(x: Exchange, ending: Ending) -> bool:
    """To the page it came from, or to one that is told of an error."""
    location = ending.get(b"location").decode("latin-1")
    if not location:
        return False
    try:
        target = urlsplit(urljoin("//-" + quote(x.path), location))
    except ValueError:
        return True
    told = {pair.partition("=")[0] for pair in target.query.split("&")}
    return "error" in told or unquote(target.path).rstrip("/") == x.path.rstrip("/")


def stage(field: str | None, quotas: tuple[Quota, ...], keys: AccountKeys) -> LoginStage | None:
    """The brake of a route with `login="email"`; None without one, or where attempts are not limited."""
    return LoginStage(field, quotas, keys) if field is not None and quotas else None
