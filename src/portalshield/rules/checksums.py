"""Arithmetic that tells a number of a kind from any other digits: Luhn, ISO 7064 mod 97-10, SSN ranges."""

from __future__ import annotations

_DOUBLED = bytes.maketrans(b"0123456789", bytes((0, 2, 4, 6, 8, 1, 3, 5, 7, 9)))
_PLAIN = bytes.maketrans(b"0123456789", bytes(range(10)))

_REGISTRY = """
    AD:24 AE:23 AL:28 AT:20 AZ:28 BA:20 BE:16 BG:22 BH:22 BI:27 BR:29 BY:28 CH:21 CR:22 CY:28 CZ:24
    DE:22 DJ:27 DK:18 DO:28 EE:20 EG:29 ES:24 FI:18 FK:18 FO:18 FR:27 GB:22 GE:22 GI:23 GL:18 GR:27 GT:28 HR:21
    HU:28 IE:22 IL:23 IQ:23 IS:26 IT:27 JO:30 KW:30 KZ:20 LB:28 LC:32 LI:21 LT:20 LU:20 LV:21 LY:25 MC:27 MD:24
    ME:22 MK:19 MN:20 MR:27 MT:31 MU:30 NI:28 NL:18 NO:15 OM:23 PK:24 PL:28 PS:29 PT:25 QA:29 RO:24 RS:22 RU:33
    SA:24 SC:31 SD:18 SE:24 SI:19 SK:24 SM:27 SO:23 ST:25 SV:28 TL:23 TN:24 TR:26 UA:29 VA:22 VG:24 XK:20
    YE:30
"""
IBAN_LENGTHS: dict[str, int] = {entry[:2]: int(entry[3:]) for entry in _REGISTRY.split()}
"""Length of an IBAN by country (SWIFT's IBAN registry)."""


def luhn(digits: str) -> bool:
    """True if the last digit is the Luhn check digit (ISO/IEC 7812-1). `digits` holds ASCII digits only."""
    backwards = digits.encode()[::-1]
    total = sum(backwards[::2].translate(_PLAIN)) + sum(backwards[1::2].translate(_DOUBLED))
    return total % 10 == 0


def card(digits: str) -> bool:
    """True for a payment card number: a known issuer range, a length it uses, and Luhn."""
    return _issuer(digits) and len(set(digits)) > 1 and luhn(digits)


def _issuer(digits: str) -> bool:
    length = len(digits)
    if digits[:1] == "4":
        return length in (13, 16, 19)
    two, four = int(digits[:2] or 0), int(digits[:4] or 0)
    if 51 <= two <= 55 or 2221 <= four <= 2720:
        return length == 16
    if two in (34, 37):
        return length == 15
    if two in (36, 38, 39) or 3000 <= four <= 3059:
        return 14 <= length <= 19
    if four in (1800, 2131):
        return length == 15
    if 3528 <= four <= 3589 or two in (62, 64, 65) or four == 6011 or two == 81:
        return 16 <= length <= 19
    return two in (50, 56, 57, 58, 60, 63, 67) and 13 <= length <= 19


def iban(text: str) -> bool:
    """True for an IBAN in its compact form (letters in any case): the country's length and mod 97 = 1 (ISO 13616)."""
    compact = text.upper()
    if IBAN_LENGTHS.get(compact[:2]) != len(compact) or not compact.isascii() or not compact.isalnum():
        return False
    return int("".join(str(int(char, 36)) for char in compact[4:] + compact[:4])) % 97 == 1


def ssn(digits: str) -> bool:
    """True for nine digits the US administration may have assigned: area not 000, 666, 9xx; no all-zero part."""
    area, group, serial = digits[:3], digits[3:5], digits[5:]
    return len(digits) == 9 and area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"
