"""HMAC secrets that everybody knows: copied from documentation, templates and standards, or plainly guessable.

A setting's rule, not one of signature checks: the examples of the RFCs must verify, but no deployment may use them. A
published secret of any length lets anyone sign as anyone; a development secret of Supabase with 55 characters passes
every length check. The list is data, compared without case and separators.
"""

from __future__ import annotations

MIN_DISTINCT_BYTES = 8
MIN_BYTES = 32
"""HS256; HS384 and HS512 need 48 and 64 (RFC 7518, 3.2)."""

_SEPARATORS = str.maketrans("", "", " -_.,:;/\\|!?#@$%^&*+=~\"'`<>()[]{}")

PUBLISHED: tuple[str, ...] = (
    # Standards: RFC 7515 A.1, RFC 7520 3.5, RFC 7517 A.3, RFC 7519 and the drafts reuse them.
    "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow",
    "hJtXIZ2uSN5kbQfbtTNWbpdmhkV8FJG-Onbc6mxCcYg",
    "AAPapAv4LbFbiVawEjagUBluYqN5rhna-8nuldDvOx8",
    "GawgguFyGrWKav7AX4VKUg",
    # Local development values of platforms and frameworks.
    "super-secret-jwt-token-with-at-least-32-characters-long",
    "your-super-secret-jwt-token-with-at-least-32-characters-long",
    "your-super-secret-and-long-postgres-password",
    "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",
    "8Zz5tw0Ionm3XPZZfN0NOml3z9FMfmpgXwovR9fp6ryDIoGRM8EPHAB6iHsc0fb",
    "192b9bdd22ab9ed4d12e236c78afcb9a393ec15f71bbf5dc987d54727823bcbf",
    "a-string-secret-at-least-256-bits-long",
    "a-valid-string-secret-that-is-at-least-512-bits-long-which-is-very-long",
    "your-256-bit-secret",
    "your-384-bit-secret",
    "your-512-bit-secret",
    "your-256-bit-secret-your-256-bit-secret",
    "qwertyuiopasdfghjklzxcvbnm123456",
    "qwertyuiopasdfghjklzxcvbnm1234567890",
    "abcdefghijklmnopqrstuvwxyz123456",
    "abcdefghijklmnopqrstuvwxyz012345",
    "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz",
    "abcdefghijklmnopqrstuvwxyz",
    "abcdefghijklmnopqrstuvwxyz0123456789",
    "0123456789abcdefghijklmnopqrstuv",
    "0123456789abcdefghijklmnopqrstuvwxyz",
    "0123456789abcdef0123456789abcdef",
    "12345678901234567890123456789012",
    "1234567890123456789012345678901234567890",
    "00112233445566778899aabbccddeeff",
    "404E635266556A586E3272357538782F413F4428472B4B6250645367566B5970",
    "9a4f2c8d3b7a1e6f45c8a0b3f267d8b1d4e6f3c8a9d2b5f8e3a9c8b5f6v8a3d9",
    "3cfa76ef14937c1c0ea519f8fc057a80fcd04a7420f8e8bcd0a7567c272e007b",
    "5367566B59703373367639792F423F4528482B4D6251655468576D5A71347437",
    "413F4428472B4B6250655368566D5970337336763979244226452948404D6351",
    "bezKoderSecretKeyForJwtTokenSigning",
    "ThisIsMySecretKeyForJwtAuthentication",
    "ThisIsASecretKeyForJwtTokenGeneration",
    "this is my custom Secret key for authentication",
    "this is my custom Secret key for authentication and authorization",
    "THIS IS USED TO SIGN AND VERIFY JWT TOKENS, REPLACE IT WITH YOUR OWN SECRET, IT CAN BE ANY STRING",
    "this is a very long secret key that should be changed in production",
    "my-32-character-ultra-secure-and-ultra-long-secret",
    "my-super-secret-key-that-is-at-least-32-characters-long",
    "my_super_secret_key_that_is_at_least_32_characters",
    "a-very-long-secret-key-that-is-at-least-32-characters",
    "a-very-secret-key-that-is-at-least-32-bytes-long",
    "some-super-secret-key-with-at-least-32-characters",
    "at-least-32-characters-long-secret-key",
    "this-is-a-secret-key-with-at-least-32-characters",
    "use-a-long-random-string-of-at-least-32-characters",
    "generate-a-secure-random-string-of-at-least-32-characters",
    "minimum-32-character-secret-key-for-jwt-signing",
    "secret-key-with-at-least-32-characters",
    "secretsecretsecretsecretsecretsecret",
    "super-secret-key-for-development-only",
    "development-secret-key-do-not-use-in-production",
    "dev-secret-key-not-for-production-use",
    "dev-only-secret-do-not-use-in-production",
    "local-development-secret-key-32-chars",
    "test-secret-key-with-at-least-32-bytes",
    "test-secret-for-unit-tests-only-32-bytes",
    "django-insecure-secret-key",
    "flask-secret-key-for-sessions",
    "fastapi-secret-key-for-jwt-tokens",
    "nextauth-secret-for-development",
    "openssl rand -hex 32",
    "openssl rand -base64 32",
    "correct horse battery staple",
    # The short ones, for whoever pads or repeats them.
    "secret",
    "secretkey",
    "secret-key",
    "mysecret",
    "mysecretkey",
    "my-secret-key",
    "supersecret",
    "supersecretkey",
    "topsecret",
    "yoursecret",
    "yoursecretkey",
    "your-secret-key",
    "your-jwt-secret",
    "jwtsecret",
    "jwt-secret-key",
    "jwt_secret_token",
    "token-secret",
    "app-secret",
    "auth-secret",
    "access-token-secret",
    "refresh-token-secret",
    "session-secret",
    "signing-key",
    "private-key",
    "shhhhh",
    "shhhhhhared-secret",
    "keyboard cat",
    "AllYourBase",
    "gOOd-Key",
    "password",
    "passphrase",
    "letmein",
    "changeit",
    "development",
    "production",
)
"""Secrets as they were published. Anyone who looks for them has them."""

# Words of a text written for a reader. Each has at least six letters: random base64 holds one by chance once in ten
# million secrets. What is left without them decides: `prod-secret-` before a long random text is no placeholder.
_PLACEHOLDERS = (
    "secret",
    "change",
    "replace",
    "production",
    "development",
    "placeholder",
    "password",
    "example",
    "insecure",
    "default",
    "donotuse",
    "characters",
    "yourkey",
    "testkey",
    "signingkey",
    "privatekey",
)
_ENOUGH_BESIDES = 40


def _folded(text: str) -> str:
    return text.lower().translate(_SEPARATORS)


def _unit(text: str) -> str:
    """The shortest text that, repeated, makes `text` (found where the text first recurs in itself)."""
    return text[: (text + text).find(text, 1)] if text else text


_KNOWN = frozenset(_unit(_folded(text)) for text in PUBLISHED)


def guessable(secret: str, min_bytes: int = MIN_BYTES) -> str | None:
    """Why an HMAC secret must not be used in production, as a fixed slug; None if nothing speaks against it.

    `published`, `placeholder`, `repeated`, `too-short` (fewer than `min_bytes`, the hash's length) or
    `few-distinct-bytes` (fewer than 8). Chosen words come first: they are the mistake worth naming.
    """
    folded = _folded(secret)
    if _unit(folded) in _KNOWN:
        return "published"
    if _is_placeholder(folded):
        return "placeholder"
    raw = secret.encode("utf-8", "surrogatepass")
    if len(raw) < min_bytes:
        return "too-short"
    if len(set(raw)) < MIN_DISTINCT_BYTES:
        return "few-distinct-bytes"
    unit = _unit(secret)
    return "repeated" if unit != secret and len(unit) < min_bytes else None


def _is_placeholder(folded: str) -> bool:
    rest = folded
    for word in _PLACEHOLDERS:
        rest = rest.replace(word, "")
    return rest != folded and len(rest) < _ENOUGH_BESIDES
