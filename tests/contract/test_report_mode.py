"""Report mode of one layer opens no other: what an enforced layer judges is fetched all the same."""

from __future__ import annotations

import pytest
from connections import request_lines

from conftest import MakePortal

FOREIGN = b'{"tenant_id": "south"}'


@pytest.mark.parametrize("mode", ["report", "off"])
@pytest.mark.parametrize(
    ("headers", "body"),
    [
        pytest.param([("content-type", "application/json")], FOREIGN, id="JSON"),
        pytest.param([("content-type", "text/plain")], FOREIGN, id="another type"),
        pytest.param([], FOREIGN, id="no type"),
        pytest.param([("content-type", "application/json")], FOREIGN + b" " * 3_000, id="too large"),
        pytest.param([("content-type", "application/json"), ("content-encoding", "br")], FOREIGN, id="a coding"),
    ],
)
@pytest.mark.parametrize("declared", [True, False], ids=["declared", "in chunks"])
def test_a_body_layer_that_only_reports_hides_no_tenant(
    make_portal: MakePortal, mode: str, headers: list[tuple[str, str]], body: bytes, declared: bool
) -> None:
    """The body is read for the tenant layer whatever the body layer thinks of it: no foreign tenant gets in."""
    portal = make_portal({"MODE__BODY": mode, "BODY__MAX_SIZE": "1KB"})
    framing = [] if declared else [("transfer-encoding", "chunked")]
    answer = portal.request("POST", "/search", [*portal.bearer(), *headers, *framing], body)
    assert answer.status in (404, 413)
    assert portal.calls == []


def test_what_is_only_reported_passes_and_is_told_once(
    make_portal: MakePortal, capfd: pytest.CaptureFixture[str]
) -> None:
    """The own tenant's body under another label arrives; the line names layer and problem."""
    request_lines(capfd)
    portal = make_portal({"MODE__BODY": "report"})
    headers = [*portal.bearer(), ("content-type", "text/plain")]
    answer = portal.request("POST", "/search", headers, b'{"tenant_id": "north"}')
    assert (answer.status, portal.calls) == (200, ["search"])
    (line,) = request_lines(capfd)
    assert line["would_refuse"] == [["body", "unsupported-media-type"]]
