"""A store that fails on purpose, for tests of what an application does then."""

from __future__ import annotations

from portalshield.model.needs import Counts, GiveBack, Hit, Unavailable
from portalshield.stores import Store
from portalshield.stores.memory import MemoryStore


class FailingStore:
    """A `Store` whose every question, or the `nth` alone (1 is the first), is answered `Unavailable(reason)`.

    All others go to `inner`, a fresh memory store unless given. `asked` counts the questions. `is_local=False` makes
    the ASGI door use `ahit`.
    """

    def __init__(
        self, nth: int | None = None, *, reason: str = "store-down", inner: Store | None = None, is_local: bool = False
    ) -> None:
        self.is_local = is_local
        self.asked = 0
        self._nth = nth
        self._missing = Unavailable(reason)
        self._inner = inner if inner is not None else MemoryStore()

    def hit(self, hit: Hit) -> Counts | Unavailable:
        """Fail, or ask the inner store."""
        return self._missing if self._fails() else self._inner.hit(hit)

    async def ahit(self, hit: Hit) -> Counts | Unavailable:
        """The same."""
        return self._missing if self._fails() else await self._inner.ahit(hit)

    def give_back(self, need: GiveBack) -> Counts | Unavailable:
        """Fail, or tell the inner store."""
        return self._missing if self._fails() else self._inner.give_back(need)

    async def agive_back(self, need: GiveBack) -> Counts | Unavailable:
        """The same."""
        return self._missing if self._fails() else await self._inner.agive_back(need)

    def clear(self) -> None:
        """Clear the inner store; `asked` counts on."""
        self._inner.clear()

    def close(self) -> None:
        """Close the inner store."""
        self._inner.close()

    async def aclose(self) -> None:
        """Close the inner store."""
        await self._inner.aclose()

    def _fails(self) -> bool:
        self.asked += 1
        return self._nth is None or self.asked == self._nth
