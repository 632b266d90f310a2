"""An issuer's metadata: what is taken from it, and that it is fetched where keys are fetched, never elsewhere."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portalshield.stores import discovery
from portalshield.stores.discovery import MetadataError, discovered, key_set_address
from portalshield.stores.fetching import FetchError

ISSUER = "https://id.example.com/realms/main"
KEYS = "https://keys.example.com/main"


def _metadata(**changes: Any) -> bytes:
    document = {"issuer": ISSUER, "jwks_uri": KEYS, "response_types_supported": ["code"], **changes}
    return json.dumps({name: value for name, value in document.items() if value is not None}).encode()


def test_the_key_set_s_address_is_taken() -> None:
    """It may lie on another host: the issuer says so itself."""
    assert key_set_address(_metadata(), ISSUER) == KEYS


def test_an_endpoint_for_every_directory_names_a_template() -> None:
    """Microsoft Entra's metadata: the braces are part of the text, nothing is put into them here."""
    template = "https://login.microsoftonline.com/{tenantid}/v2.0"
    assert key_set_address(_metadata(issuer=template), template) == KEYS
    with pytest.raises(MetadataError):
        key_set_address(_metadata(issuer=template.format(tenantid="common")), template)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(_metadata(issuer=ISSUER + "/"), id="a slash more"),
        pytest.param(_metadata(issuer=ISSUER.upper()), id="another case"),
        pytest.param(_metadata(issuer=None), id="no issuer"),
        pytest.param(_metadata(issuer=[ISSUER]), id="a list of issuers"),
        pytest.param(_metadata(jwks_uri=None), id="no key set"),
        pytest.param(_metadata(jwks_uri=[KEYS]), id="a list of key sets"),
        pytest.param(_metadata()[:-1] + b',"issuer":"https://evil.example"}', id="two issuers"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"<html>", id="a page"),
        pytest.param(b"", id="nothing"),
        pytest.param(b'{"a":' * 500 + b"1" + b"}" * 500, id="nested deeply"),
        pytest.param(_metadata().decode().encode("utf-16"), id="another encoding"),
    ],
)
def test_anything_else_is_refused(body: bytes) -> None:
    """Section 4.3: exactly the configured issuer; no text of the answer is repeated."""
    with pytest.raises(MetadataError) as caught:
        key_set_address(body, ISSUER)
    assert "evil" not in str(caught.value)


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader(body: bytes) -> None:
    """`MetadataError` or an address, nothing else."""
    try:
        assert isinstance(key_set_address(body, ISSUER), str)
    except MetadataError:
        return


def test_the_loader_follows_in_its_own_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second document is fetched by whoever loads the first, within its own bounds, and handed on as it came."""
    asked: list[tuple[Any, ...]] = []

    def fetch(*terms: Any) -> bytes:
        asked.append((*terms, threading.current_thread().name))
        return b"key set"

    monkeypatch.setattr(discovery, "fetch", fetch)
    load = discovered(ISSUER, lambda body: body.decode().upper(), timeout_s=0.5, max_bytes=1000)
    assert asked == []
    assert load(_metadata()) == "KEY SET"
    assert asked == [(KEYS, 0.5, 1000, False, threading.current_thread().name)]


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        pytest.param("http://keys.example.com/main", "insecure-url", id="plain http"),
        pytest.param("file:///etc/passwd", "bad-url", id="a file"),
        pytest.param("https://user:pw@keys.example.com/", "bad-url", id="user info"),
        pytest.param("https://keys.example.com/\r\nX: y", "bad-url", id="a second line"),
        pytest.param("", "bad-url", id="empty"),
    ],
)
def test_the_key_set_comes_over_https_only(address: str, reason: str) -> None:
    """An issuer cannot send us to an address that a configured one must not have."""
    with pytest.raises(FetchError) as caught:
        discovered(ISSUER, lambda body: body, allow_http=True)(_metadata(jwks_uri=address))
    assert caught.value.reason == reason
