"""The value of `Idempotency-Key`: a String of structured fields (RFC 8941, 3.3.3), or the bare text of most clients."""

from __future__ import annotations

LONGEST = 255
_BARE = frozenset(b"!#$%&'*+-.^_`|~:/0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ=@")
_PLAIN = frozenset(range(0x20, 0x7F)) - frozenset(b'"\\')


def parse_key(value: bytes) -> bytes | None:
    """`"a b"` and `abc` -> the text; None for anything else, also for parameters, lists and more than 255 characters.

    Quoted and bare, a text is the same key.
    """
    text = value.strip(b" \t")
    quoted = text[:1] == b'"'
    found = _unquoted(text) if quoted else text if _BARE.issuperset(text) else None
    return found if found and len(found) <= LONGEST else None


def _unquoted(text: bytes) -> bytes | None:
    if len(text) < 2 or len(text) > 2 * LONGEST + 2 or text[-1:] != b'"':
        return None
    found = bytearray()
    characters = iter(text[1:-1])
    for character in characters:
        if character == 0x5C:  # a backslash escapes a quote or itself, nothing else
            character = next(characters, 0)
            if character not in b'"\\':
                return None
        elif character not in _PLAIN:
            return None
        found.append(character)
    return bytes(found)
