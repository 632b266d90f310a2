"""What both doors share: compiled once, started in each process."""

from __future__ import annotations

import os
import signal
from types import SimpleNamespace
from typing import Any

import pytest

from portalshield.opening import Opening


class Started:
    """Counts how often it was started."""

    def __init__(self) -> None:
        self.times = 0

    def start(self) -> None:
        self.times += 1


def runtime(**changes: Any) -> Any:
    """As much of a runtime as opening it needs."""
    return SimpleNamespace(**{"keys": {"a": Started(), "b": Started()}, "revocations": Started(), **changes})


def test_opening_starts_key_sets_and_revocations_once() -> None:
    """However often a scope or request comes."""
    made = runtime()
    opening = Opening(lambda: made)
    assert [opening.attempt(), opening.attempt(), opening.runtime] == [made] * 3
    assert [made.keys["a"].times, made.keys["b"].times, made.revocations.times] == [1, 1, 1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_starts_its_own() -> None:
    """Threads do not survive a fork: the child's first request starts them, and nothing is compiled again."""
    compiled: list[Any] = []

    def compile_it() -> Any:
        compiled.append(runtime())
        return compiled[-1]

    opening = Opening(compile_it)
    made = opening.attempt()
    opening._lock.acquire()  # as if a thread of the parent held it
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        fine = False
        try:
            untouched = opening.runtime is None and made.revocations.times == 1
            again = opening.attempt()
            fine = untouched and again is made and len(compiled) == 1
            fine = fine and [made.keys["a"].times, made.revocations.times] == [2, 2]
        finally:
            os._exit(0 if fine else 1)
    opening._lock.release()
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert opening.runtime is made


def test_an_application_that_knows_its_users_follows_nothing() -> None:
    """No revocations, no thread."""
    assert Opening(lambda: runtime(revocations=None)).attempt() is not None


def test_what_cannot_be_compiled_stays_an_error() -> None:
    """In a forked child too: it is not tried with every request."""
    tried: list[int] = []

    def fail() -> Any:
        tried.append(1)
        raise ValueError("broken")

    opening = Opening(fail)
    assert [opening.attempt(), opening.attempt()] == [None, None]
    opening.forked()
    assert opening.attempt() is None
    assert (len(tried), type(opening.error)) == (1, ValueError)
