"""The response head while layers add to it."""

from __future__ import annotations

from portalshield.model.verdicts import Fields

_VARY_MEMO: dict[tuple[bytes, ...], tuple[bytes, bytes]] = {}


class Head:
    """Status and header fields of a response; the application's own fields keep their order, repeats and spelling.

    `names` holds the lower-case names that are there. What is named in `varies` is joined into one `Vary` at the end.
    """

    __slots__ = ("fields", "names", "status", "varies")

    def __init__(self, status: int, fields: list[tuple[bytes, bytes]]) -> None:
        self.status = status
        self.fields = fields
        self.names = names = {name for name, _ in fields}
        if names and not b"".join(names).islower():
            self.names = {name.lower() for name in names}
        self.varies: tuple[bytes, ...] = ()

    def get(self, name: bytes) -> bytes | None:
        """The first value of a field, by lower-case name."""
        if name in self.names:
            for key, value in self.fields:
                if key == name or key.lower() == name:
                    return value
        return None

    def add(self, fields: Fields, names: frozenset[bytes] | None = None) -> None:
        """Add fields that are not there yet, by name; `names` spares looking at each where none of them is."""
        held = self.names
        if names is not None and held.isdisjoint(names):
            self.fields.extend(fields)
            return
        for field in fields:
            if field[0] not in held:
                self.fields.append(field)

    def drop(self, names: frozenset[bytes]) -> None:
        """Remove all fields of these lower-case names."""
        if not self.names.isdisjoint(names):
            self.fields[:] = [field for field in self.fields if field[0].lower() not in names]
            self.names -= names

    def put(self, name: bytes, value: bytes) -> None:
        """Replace whatever stands under this lower-case name."""
        if name in self.names:
            self.drop(frozenset((name,)))
        self.fields.append((name, value))

    def finish(self) -> None:
        """Write `Vary`: what the application named, then ours, each once."""
        if not self.varies:
            return
        if b"vary" not in self.names:
            field = _VARY_MEMO.get(self.varies)
            if field is None:
                field = _VARY_MEMO[self.varies] = (b"vary", b", ".join(dict.fromkeys(self.varies)))
            self.fields.append(field)
            return
        held = [value for key, value in self.fields if key.lower() == b"vary"]
        tokens = [part.strip() for value in held for part in value.split(b",") if part.strip()]
        if b"*" not in tokens:
            known = {token.lower() for token in tokens}
            tokens += [token for token in dict.fromkeys(self.varies) if token.lower() not in known]
            self.put(b"vary", b", ".join(tokens))
