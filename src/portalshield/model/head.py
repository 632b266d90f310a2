"""The response head while layers add to it."""

from __future__ import annotations

from portalshield.model.verdicts import Fields


class Head:
    """Status and header fields of a response; the application's own fields keep their order, repeats and spelling.

    `names` holds the lower-case names that are there.
    """

    __slots__ = ("fields", "names", "status")

    def __init__(self, status: int, fields: list[tuple[bytes, bytes]]) -> None:
        self.status = status
        self.fields = fields
        self.names = {name.lower() for name, _ in fields}

    def get(self, name: bytes) -> bytes | None:
        """The first value of a field, by lower-case name."""
        if name not in self.names:
            return None
        return next(value for key, value in self.fields if key.lower() == name)

    def add(self, fields: Fields) -> None:
        """Add fields that are not there yet, by name."""
        names = self.names
        for field in fields:
            if field[0] not in names:
                names.add(field[0])
                self.fields.append(field)

    def drop(self, names: frozenset[bytes]) -> None:
        """Remove all fields of these lower-case names."""
        if not self.names.isdisjoint(names):
            self.fields[:] = [field for field in self.fields if field[0].lower() not in names]
            self.names -= names

    def put(self, name: bytes, value: bytes) -> None:
        """Replace whatever stands under this lower-case name."""
        self.drop(frozenset((name,)))
        self.fields.append((name, value))
        self.names.add(name)

    def vary(self, token: bytes) -> None:
        """Name a request field in `Vary`, once, behind what the application named."""
        if b"vary" not in self.names:
            self.names.add(b"vary")
            self.fields.append((b"vary", token))
            return
        held = [value for key, value in self.fields if key.lower() == b"vary"]
        tokens = [part.strip() for value in held for part in value.split(b",") if part.strip()]
        if b"*" in tokens or token.lower() in {part.lower() for part in tokens}:
            return
        self.put(b"vary", b", ".join([*tokens, token]))
