"""The response guard: no answer shows another tenant's rows.

Reads JSON responses of known length up to a cap, before compression, and refuses (500) one that carries a tenant field
with another tenant's id. It catches what no look at the request can: a handler that forgot its WHERE clause, an opaque
object id. Does not cover: rows without a tenant field, streams, compressed or partial bodies, routes that span tenants.
Costs about 1 us per kB and field name on bodies that name one.
"""

from __future__ import annotations

from collections.abc import Iterable

from portalshield.model.exchange import Exchange
from portalshield.model.verdicts import Verdict, problem
from portalshield.rules.tenant_scan import FOREIGN, UNCOVERED, TenantScan

CAP_BYTES = 2_097_152
_FOREIGN = problem("internal-error", why="foreign-tenant-in-response")
_BODYLESS = frozenset((204, 205, 304))
_PARTIAL = 206
_JSON = (b"/json", b"+json", b"/x-json", b"/x-ndjson", b"/ndjson", b"/jsonl", b"/x-jsonl", b"/jsonlines", b"json-seq")
_LONGEST = len(str(CAP_BYTES))


class ResponseGuardStage:
    """Compares every tenant field of a response with the proven tenant."""

    layer = "response_guard"

    def __init__(self, fields: tuple[str, ...]) -> None:
        self._scan = TenantScan(fields).scan

    def reads(self, status: int, fields: Iterable[tuple[bytes, bytes]]) -> bool | None:
        """JSON can be read unless it is coded or a part of something; None: no JSON. Names in any case, fields twice,
        and what else an application may write."""
        media = False
        readable = status != _PARTIAL
        for name, value in fields:
            match name.lower():
                case b"content-type":
                    media = media or _is_json(value)
                case b"content-encoding":
                    readable = readable and value.lower() == b"identity"
        return readable if media and status not in _BODYLESS else None

    def wants(self, x: Exchange, readable: bool, length: bytes) -> int:
        """The length of a JSON answer to a principal of a tenant, if it is declared, bounded and can be read.

        Any other JSON answer to one leaves `x.covered` False: it goes out unread.
        """
        principal = x.principal
        if principal is None or principal.tenant is None or x.method == "HEAD" or length == b"0":
            return 0
        x.covered = False
        declared = int(length) if readable and length.isdigit() and len(length) <= _LONGEST else 0
        return declared if declared <= CAP_BYTES else 0

    def judge(self, x: Exchange, body: bytes) -> Verdict:
        """Refuse a body that shows another tenant."""
        principal = x.principal
        if principal is None or principal.tenant is None:
            return None
        found = self._scan(body, principal.tenant)
        x.covered = found is not UNCOVERED
        return _FOREIGN if found is FOREIGN else None


def _is_json(content_type: bytes) -> bool:
    media = content_type.partition(b";")[0].strip().lower()
    return media.endswith(_JSON)
