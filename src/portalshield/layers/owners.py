"""Owners: an opaque object id is asked for the tenant that owns it, before the handler runs.

`owners={"invoice_id": tenant_of_invoice}` covers every path parameter, query, form and JSON field of that name. An id
of another tenant and an id nobody owns answer the same 404; a look-up that fails answers 503. Does not cover: objects
that are addressed by other names, rows that a handler joins in. Costs what the look-up costs; each id is asked once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from portalshield.model.exchange import Exchange
from portalshield.model.needs import AskOwner, Owners, Unavailable
from portalshield.model.verdicts import Verdict, problem, unavailable
from portalshield.rules.addressed import TooManyPairsError, as_id, in_query, names_occur, same_id
from portalshield.rules.body_ids import UnreadableError, in_body

Owner = Callable[[str], Any]
"""From the id as text to the tenant that owns it, or None; sync or async."""

MAX_IDS = 100
_FOREIGN = problem("not-found", why="foreign-owner")
_FLOOD = problem("malformed-request", why="too-many-ids")


def _nobody(value: str) -> None:
    """The owner of what is no id at all."""


class OwnerStage:
    """The ids of one position, each distinct one asked once per request."""

    layer = "tenant"
    needs_principal = True

    def __init__(self, owners: Mapping[str, Owner], *, in_body: bool) -> None:
        self._owners = dict(owners)
        self.names = self._names = frozenset(owners)
        self._in_query = tuple(name.encode() for name in owners)
        self._in_body = self.judges_body = in_body

    def ask(self, x: Exchange) -> AskOwner | None:
        """Every id of a known name that was not asked yet."""
        try:
            found = list(self._of_body(x) if self._in_body else self._of_head(x))
        except (TooManyPairsError, UnreadableError):
            return AskOwner(())
        known = x.owners or {}
        wanted = {pair: None for pair in found if pair not in known}
        if len(wanted) > MAX_IDS:
            return AskOwner(())
        if not wanted:
            return None
        return AskOwner(tuple((self._owners[name] if value else _nobody, name, value) for name, value in wanted))

    def settle(self, x: Exchange, need: AskOwner, answer: Owners | Unavailable) -> Verdict:
        """404 unless the proven tenant owns every one of them."""
        if not need.questions:
            return _FLOOD
        if isinstance(answer, Unavailable):
            return unavailable(answer.reason)
        tenant = x.principal.tenant if x.principal is not None else None
        owned = all(found is not None and tenant is not None and same_id(found, tenant) for found in answer.tenants)
        if not owned:
            return _FOREIGN
        asked = {(name, value): found for (_, name, value), found in zip(need.questions, answer.tenants, strict=True)}
        x.owners = {**(x.owners or {}), **asked}
        return None

    def _of_head(self, x: Exchange) -> Iterator[tuple[str, str]]:
        for name, value in x.params.items():
            if name in self._names:
                # What the converter changes is not the id that would be asked for: an impossible id has no owner.
                yield name, value if str(x.arguments.get(name, value)) == value else ""
        if x.query and names_occur(x.query, self._in_query):
            yield from in_query(x.query, self._names)

    def _of_body(self, x: Exchange) -> Iterator[tuple[str, str]]:
        body = x.body
        if x.form is not None:
            yield from (field for field in x.form.fields if field[0] in self._names)
            return
        if not body:
            return
        for name, value in in_body(body, x.json, x.headers.get(b"content-type"), self._names, cut=True):
            for item in value if isinstance(value, list) else (value,):
                if item is not None:
                    yield name, as_id(item) or ""
