"""The response scan: no planted foreign row is missed, no honest text is an alarm."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portalshield.rules.tenant_scan import Scan, TenantScan

scan = TenantScan(("tenant_id", "orgId")).scan


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(b'{"tenant_id":"north"}', Scan.OWN, id="own"),
        pytest.param(b'[{"tenant_id":"north"},{"tenant_id":"north"}]', Scan.OWN, id="own rows"),
        pytest.param(b'{"tenant_id": "north"}', Scan.OWN, id="own with a blank"),
        pytest.param(b'{"tenant_id":"south"}', Scan.FOREIGN, id="foreign"),
        pytest.param(b'[{"tenant_id":"north"},{"tenant_id":"south"}]', Scan.FOREIGN, id="one foreign row"),
        pytest.param(b'{"a":{"b":[{"orgId" : "south"}]}}', Scan.FOREIGN, id="nested, spaced"),
        pytest.param(b'{"tenant_id":["north","south"]}', Scan.FOREIGN, id="in a list"),
        pytest.param(b'{"tenant_id":["north"]}', Scan.OWN, id="own in a list"),
        pytest.param(b'{"tenant_id":7}', Scan.FOREIGN, id="a number"),
        pytest.param(b'{"tenant_id":null}', Scan.UNCOVERED, id="a global row"),
        pytest.param(b'{"\\u0074enant_id":"south"}', Scan.FOREIGN, id="escaped name"),
        pytest.param(b'{"tenant_id":"north"}\n{"tenant_id":"south"}\n', Scan.FOREIGN, id="NDJSON"),
        pytest.param(b'{"tenant_id":"north"}\n{"tenant_id":"north"}\n', Scan.OWN, id="own NDJSON"),
        pytest.param(b'{"note":"he wrote \\"tenant_id\\":\\"south\\" here"}', Scan.UNCOVERED, id="quoted in a text"),
        pytest.param(b'{"name":"tenant_id"}', Scan.UNCOVERED, id="the name as a value"),
        pytest.param(b'{"total":3}', Scan.UNCOVERED, id="nothing to compare"),
        pytest.param(b'{"tenant_id":"south"', Scan.FOREIGN, id="broken"),
    ],
)
def test_bodies(body: bytes, expected: Scan) -> None:
    """Each body and what it shows to a user of north."""
    assert scan(body, "north") is expected


trees = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


@given(trees, st.sampled_from(["tenant_id", "orgId"]), st.booleans(), st.integers(0, 3))
def test_a_planted_foreign_row_is_never_missed(tree: Any, name: str, ascii_only: bool, indent: int) -> None:
    """Wherever it stands, however the serialiser writes it."""
    planted = {"rows": [tree, {"x": tree, name: "south"}]}
    body = json.dumps(planted, ensure_ascii=ascii_only, indent=indent or None).encode()
    assert scan(body, "north") is Scan.FOREIGN


@given(trees)
def test_text_is_no_alarm(tree: Any) -> None:
    """Without the field as a member nothing is foreign."""
    assert scan(json.dumps([tree, 'a "tenant_id":"south" b']).encode(), "north") is not Scan.FOREIGN


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(b'{"tenant_id":"north","note":"he said \\"hi\\""}', True, id="own, and quotes in a text"),
        pytest.param(b'{"note":"the tenant_id is \\"x\\""}', True, id="the name in a text"),
        pytest.param(b'{"tenant_id":"south"}', False, id="foreign"),
        pytest.param(b'{"f":"{\\"tenant_id\\":\\"north\\"}"}', False, id="JSON in a string"),
        pytest.param(b'{"f":"{\\"f\\":\\"{\\\\\\"orgId\\\\\\":1}\\"}"}', False, id="in a string of a string"),
        pytest.param(
            b'{"f":"[{\\"op\\":\\"test\\",\\"path\\":\\"/tenant_id\\"}]"}', False, id="JSON Patch in a string"
        ),
    ],
)
def test_requests_that_need_no_closer_look(body: bytes, expected: bool) -> None:
    """A body without a name but the own tenant's; JSON in a string leads to the parser, an ordinary quote does not."""
    assert TenantScan(("tenant_id", "orgId")).names_only(body, "north") is expected


@pytest.mark.parametrize("tenant", ["replace", "add", "move", "op", ""])
def test_json_patch_is_looked_at_closely_whatever_a_tenant_is_called(tenant: str) -> None:
    """Its names stand in pointers (RFC 6902); an operation is no value that could be a tenant's own."""
    body = b'[ {"op" : "replace", "path": "/tenant_id", "value": "south"}, {"op":"move","from":"/a","path":"/orgId"} ]'
    assert not TenantScan(("tenant_id", "orgId")).names_only(body, tenant)
    assert not TenantScan(("tenant_id", "op")).names_only(body, tenant)
