"""Request ids: random, never twice, not even in two processes that were one."""

from __future__ import annotations

import os
import threading

import pytest

from portalshield.runtime import RequestIds


def test_ids_are_32_hex_digits_and_never_come_twice() -> None:
    """Over many pools of randomness, drawn by several threads at once."""
    ids = RequestIds()
    drawn: list[str] = []

    def draw() -> None:
        drawn.extend([ids.draw() for _ in range(2_000)])

    threads = [threading.Thread(target=draw) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(drawn) == len(set(drawn)) == 8_000
    assert all(len(found) == 32 and set(found) <= set("0123456789abcdef") for found in drawn)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_draws_others() -> None:
    """What the parent had in store is not used in both."""
    ids = RequestIds()
    ids.draw()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, "".join(ids.draw() for _ in range(64)).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        theirs = pipe.read().decode()
    assert os.waitpid(child, 0)[1] == 0
    ours = {ids.draw() for _ in range(64)}
    assert len(theirs) == 64 * 32
    assert ours.isdisjoint(theirs[at : at + 32] for at in range(0, len(theirs), 32))
