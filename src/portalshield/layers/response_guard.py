"""The response guard: no answer shows another tenant's rows.

Reads JSON responses of known length up to a cap, before compression, and refuses (500) one that carries a tenant field
with another tenant's id. It catches what no look at the request can: a handler that forgot its WHERE clause, an opaque
object id. Does not cover: rows without a tenant field, streams, compressed bodies, routes that span tenants. Costs
about 1 us per kB and field name on bodies that name one.
"""

from __future__ import annotations

from portalshield.model.exchange import Exchange
from portalshield.model.head import Head
from portalshield.model.verdicts import Verdict, problem
from portalshield.rules.tenant_scan import Scan, TenantScan

CAP_BYTES = 2_097_152
_FOREIGN = problem("internal-error", why="foreign-tenant-in-response")


class ResponseGuardStage:
    """Compares every tenant field of a response with the proven tenant."""

    layer = "response_guard"

    def __init__(self, fields: tuple[str, ...]) -> None:
        self._scan = TenantScan(fields).scan

    def wants(self, x: Exchange, head: Head) -> bool:
        """A JSON answer to a principal of a tenant, of a declared and bounded length, not compressed."""
        principal = x.principal
        if principal is None or principal.tenant is None or b"content-encoding" in head.names:
            return False
        media = (head.get(b"content-type") or b"").partition(b";")[0].strip().lower()
        if not (media.endswith((b"/json", b"+json", b"/x-ndjson")) and media != b"application/problem+json"):
            return False
        length = head.get(b"content-length")
        return length is not None and length.isdigit() and 0 < int(length) <= CAP_BYTES

    def judge(self, x: Exchange, body: bytes) -> Verdict:
        """Refuse a body that shows another tenant."""
        principal = x.principal
        if principal is None or principal.tenant is None:
            return None
        found = self._scan(body, principal.tenant)
        x.covered = found is not Scan.UNCOVERED
        return _FOREIGN if found is Scan.FOREIGN else None
