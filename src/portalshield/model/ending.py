"""How a request ended: what `Concludes.conclude` is told once the application has answered, or can no longer."""

from __future__ import annotations

from typing import NamedTuple

from portalshield.model.verdicts import Fields


class Ending(NamedTuple):
    """`status` and header `fields` (names and values as the application gave them) of its answer.

    Status 0: there was none that is whole. It crashed, was cancelled, was cut, or never ran because somebody behind
    this stage refused. `body` is the whole answer, None where it streamed, is larger than the stage keeps
    (`keeps_body`) or did not come to its end.
    """

    status: int
    fields: Fields = ()
    body: bytes | None = None

    def get(self, name: bytes) -> bytes:
        """The first value of a field by lower-case name, empty if it is not there."""
        return next((value for key, value in self.fields if key.lower() == name), b"")
