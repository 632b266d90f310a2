"""Sentry's framework integrations and the shield together: facts arrive, nothing twice, nothing of another request."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from programs import told_by

ROOT = Path(__file__).parents[2]
Report = dict[str, Any]


@pytest.fixture(scope="module")
def report() -> Report:
    """Every scenario, run once in a process of its own."""
    found: Report = told_by("sentry_apps.py")
    return found


@pytest.mark.parametrize(
    "scenario",
    [
        "asgi shield exception",
        "asgi wrapped exception",
        "asgi add_middleware exception",
        "wsgi shield exception",
        "wsgi wrapped exception",
        "thread",
        "stream",
    ],
)
def test_error_and_transaction_carry_the_request(report: Report, scenario: str) -> None:
    """Request id, route and tenant's pseudonym stand on both, wherever the shield is put on."""
    found = report[scenario]
    (event,), (transaction,) = found["events"], found["transactions"]
    assert event["types"][-1] == "RuntimeError"
    for tags in (event["tags"], transaction["tags"]):
        assert tags["request_id"] == found["answer"]["request_id"]
        assert tags["route"].startswith("/")
        assert tags["tenant"].startswith("t_")
    assert event["user"]["id"].startswith("u_")


@pytest.mark.parametrize(
    "scenario",
    [
        "asgi shield exception", "asgi wrapped exception", "asgi add_middleware exception", "wsgi shield exception",
        "wsgi wrapped exception", "thread", "stream",
    ],
)  # fmt: skip
def test_one_event_and_one_transaction_per_request(report: Report, scenario: str) -> None:
    """An exception is captured once, however many parties see it."""
    assert (len(report[scenario]["events"]), len(report[scenario]["transactions"])) == (1, 1)


def test_explicit_middleware_and_mounted_application_double_nothing(report: Report) -> None:
    """Sentry's middleware by hand beside its integration: two requests, two events, two transactions."""
    found = report["explicit"]
    assert [answer["status"] for answer in found["answers"]] == [500, 500]
    assert (len(found["events"]), len(found["transactions"])) == (2, 2)


def test_no_request_gets_the_facts_of_another(report: Report) -> None:
    """Of a hundred at once, sixty events leave (the cap); none carries a foreign or repeated id."""
    found = report["crowd"]
    ids = [event["tags"].get("request_id") for event in found["events"]]
    known = [one for one in ids if one is not None]
    assert len(found["events"]) == 60
    assert len(set(known)) == len(known)
    assert set(known) <= set(found["ids"])


def test_endpoint_may_read_receive_itself(report: Report) -> None:
    """Sentry leaves the body alone: the handler gets it, nothing hangs."""
    assert report["reads receive"]["answer"]["status"] == 200


@pytest.mark.parametrize("scenario", ["asgi unmatched", "wsgi unmatched"])
def test_path_to_nowhere_names_no_transaction(report: Report, scenario: str) -> None:
    """The transaction of an unrouted request is called unmatched; the path is nowhere."""
    assert [transaction["name"] for transaction in report[scenario]["transactions"]] == ["unmatched"]
    assert "secret-path" not in json.dumps(report[scenario])
