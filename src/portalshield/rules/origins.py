"""Web origins: their canonical text, and an allowlist that is compiled once.

Facts (WHATWG URL, Fetch 3.2): a browser serialises an origin in lower case, host names in punycode, without a default
port and without a slash; the comparison is byte equality. So a configured origin is brought into that form, or refused
with its reason. Patterns have one `*` in the first label and are compared by prefix, suffix and a check of the label
between them: no regex, hence no dot that matches anything and no missing anchor.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address

CODES: dict[str, tuple[str, str]] = {
    "001": ("is empty.", "Remove the doubled or trailing comma."),
    "002": ("is a lone *.", "Name the origins of your front ends, for example https://app.example.com."),
    "003": ("is a lone * with credentials.", "Any site could read a user's data: name the origins of your front ends."),
    "004": ("is null.", "Sandboxed frames and local files share this origin: remove it."),
    "005": ("has a path, query or fragment.", "Write scheme and host only, for example https://app.example.com."),
    "006": ("has no scheme.", "Write https:// in front of the host."),
    "007": ("has a scheme other than http or https.", "Write https:// in front of the host."),
    "008": ("has a user name or password.", "Remove everything up to the @."),
    "009": ("has a malformed host.", "Write a host name such as app.example.com, or [2001:db8::1]."),
    "010": ("has a malformed port.", "Write a port from 1 to 65535, or leave it out."),
    "011": (
        "has white space or a control character in it.",
        "Separate origins by commas, remove what is invisible.",
    ),
    "012": ("has a * behind the first label.", "The * may only stand in the first label: https://*.example.com."),
    "013": ("has more than one *.", "Write one * in the first label, or name the origins."),
    "014": (
        "is a wildcard for a suffix that strangers share.",
        "Anybody can get a host there: write the fixed part too, for example https://portal-*-acme.vercel.app.",
    ),
    "015": (
        "is a pattern for a suffix that strangers share, with credentials.",
        "Name each origin, use a domain of your own, or switch credentials off.",
    ),
    "016": (
        "has a wildcard port.",
        "Name the port; http://localhost:* is allowed in development only.",
    ),
    "017": ("holds several origins.", "Separate origins by commas."),
    "018": (
        "has letters that browsers and older rules read as different domains.",
        "Write the host in its punycode form (xn--...), as the browser shows it in the Origin field.",
    ),
    "019": ("is a pattern without a domain.", "Write a domain of your own behind the *: https://*.example.com."),
}
"""Code -> (what is wrong, what to do). Fixed texts: a configured value never reaches an error message."""

SHARED_SUFFIXES = frozenset(
    (
        *("vercel.app", "now.sh", "netlify.app", "onrender.com", "pages.dev", "workers.dev", "herokuapp.com"),
        *("github.io", "gitlab.io", "bitbucket.io", "web.app", "firebaseapp.com", "appspot.com", "run.app"),
        *("cloudfunctions.net", "fly.dev", "railway.app", "up.railway.app", "azurewebsites.net"),
        *("azurestaticapps.net", "azureedge.net", "azurefd.net", "cloudapp.net", "cloudapp.azure.com"),
        *("blob.core.windows.net", "web.core.windows.net", "cloudfront.net", "amplifyapp.com", "elasticbeanstalk.com"),
        *("amazonaws.com", "awsapprunner.com", "on.aws", "s3.amazonaws.com", "ondigitalocean.app"),
        *("digitaloceanspaces.com", "surge.sh", "glitch.me", "repl.co", "replit.app", "replit.dev", "deno.dev"),
        *("deno.net", "stackblitz.io", "webcontainer.io", "csb.app", "codesandbox.io", "gitpod.io", "github.dev"),
        *("githubpreview.dev", "app.github.dev", "ngrok.io", "ngrok.app", "ngrok.dev", "ngrok-free.app"),
        *("ngrok-free.dev", "trycloudflare.com", "loca.lt", "localhost.run", "lhr.life", "serveo.net", "supabase.co"),
        *("lovable.app", "lovableproject.com", "bolt.host", "v0.app", "framer.app", "framer.website", "webflow.io"),
        *("wixsite.com", "weebly.com", "wordpress.com", "blogspot.com", "myshopify.com", "streamlit.app", "hf.space"),
        *("pythonanywhere.com", "koyeb.app", "northflank.app", "zeabur.app", "cyclic.app", "kinsta.app"),
        *("kinsta.page", "sevalla.app", "edgeone.app", "azurecontainerapps.io", "nip.io", "sslip.io", "duckdns.org"),
    )
)
"""Suffixes under which strangers get hosts too: what portals are deployed to, not all public suffixes."""

_REGISTRY_LABELS = frozenset(("ac", "co", "com", "edu", "go", "gob", "gov", "gv", "ne", "net", "or", "org"))
_LOOPBACK = frozenset(("localhost", "127.0.0.1", "[::1]"))
_PORTS = {"http": "80", "https": "443"}
# Underscores are not host names by RFC 1123, but browsers load such hosts and send them.
_LABEL = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_")
_LABEL_BYTES = bytes(sorted(map(ord, _LABEL)))
_DIGITS = frozenset("0123456789")
# IDNA 2003 (the codec of the standard library) maps these to other letters or drops them; browsers do not.
_DEVIATIONS = frozenset("ßẞς\u200c\u200d")
_STAND_IN = "w"


class OriginError(ValueError):
    """A configured origin cannot be used. `code` is a key of `CODES`, `hint` says what to do; the text has no value."""

    def __init__(self, code: str, hint: str = "", *, entry: int | None = None) -> None:
        message, standard_hint = CODES[code]
        self.code = code
        self.hint = hint or standard_hint
        self.entry = entry
        super().__init__(f"origin {message}" if entry is None else f"entry {entry} {message}")


def canonical_origin(text: str) -> str:
    """The text a browser would send for this origin: `HTTPS://Müller.example:443/` -> `https://xn--mller-kva.example`.

    One trailing slash is forgiven. Raises `OriginError` for anything that is not one exact http or https origin.
    """
    scheme, host, port = _split(text)
    if "*" in port:
        raise OriginError("016")
    if "*" in host:
        raise OriginError("012")
    return _join(scheme, _canonical_host(host), _canonical_port(scheme, port))


class OriginPolicy:
    """An allowlist of origins, compiled.

    `origins`: exact origins, `https://*.example.com` (the `*` is one label) or one `*` inside the first label;
    `http://localhost:*` in `development`. `credentials`: whether answers are shared together with cookies. Raises
    `OriginError` for the first entry that is broken or dangerous; `origin_faults` tells all of them.
    """

    __slots__ = ("_any_port", "_exact", "_patterns")

    def __init__(self, origins: Sequence[str], *, credentials: bool, development: bool) -> None:
        exact: set[bytes] = set()
        any_port: set[bytes] = set()
        patterns: dict[bytes, tuple[tuple[bytes, bytes], ...]] = {}
        for number, text in enumerate(origins, 1):
            try:
                form = _compile(text, credentials=credentials, development=development)
            except OriginError as error:
                raise OriginError(error.code, entry=number) from None
            if isinstance(form, _Pattern):
                patterns[form.rest] = (*patterns.get(form.rest, ()), (form.before, form.after))
            elif form.endswith(":*"):
                any_port.add(form[:-2].encode())
            else:
                exact.add(form.encode())
        self._exact = frozenset(exact | any_port)
        self._any_port = frozenset(any_port)
        self._patterns = patterns

    def allows(self, origin: bytes) -> bool:
        """Whether this `Origin` field value, exactly as it came, is on the list. One set lookup for exact origins."""
        if origin in self._exact:
            return True
        if self._patterns and self._matches(origin):
            return True
        return bool(self._any_port) and self._on_any_port(origin)

    def __contains__(self, origin: object) -> bool:
        """The same as an operator."""
        return isinstance(origin, bytes) and self.allows(origin)

    def _matches(self, origin: bytes) -> bool:
        head, _, rest = origin.partition(b".")
        return any(_fills(head, before, after) for before, after in self._patterns.get(rest, ()))

    def _on_any_port(self, origin: bytes) -> bool:
        host, _, port = origin.rpartition(b":")
        return host in self._any_port and _is_serialised_port(port)


def is_loopback(origin: str) -> bool:
    """Whether a configured origin, exact or with any port, is this machine: `localhost`, 127.0.0.0/8 or `[::1]`."""
    host = _split(origin)[1].lower()
    return host in _LOOPBACK or host.endswith(".localhost") or (host[:4] == "127." and host[-1] in _DIGITS)


def origin_faults(origins: Sequence[str], *, credentials: bool, development: bool) -> tuple[OriginError, ...]:
    """Every entry that `OriginPolicy` would refuse, numbered from 1; empty if the list can be used."""
    faults = []
    for number, text in enumerate(origins, 1):
        try:
            _compile(text, credentials=credentials, development=development)
        except OriginError as error:
            faults.append(OriginError(error.code, entry=number))
    return tuple(faults)


# -- patterns ---------------------------------------------------------------------------------------------------------


class _Pattern:
    """`before` and `after` are the fixed parts of the first label (scheme included), `rest` what follows its dot."""

    __slots__ = ("after", "before", "rest")

    def __init__(self, before: str, after: str, rest: str) -> None:
        self.before = before.encode()
        self.after = after.encode()
        self.rest = rest.encode()


def _compile(text: str, *, credentials: bool, development: bool) -> str | _Pattern:
    if text == "*":
        raise OriginError("003" if credentials else "002")
    if text.count("*") > 1:
        raise OriginError("013")
    if "*" not in text:
        return canonical_origin(text)
    scheme, host, port = _split(text)
    if "*" in port:
        return _any_port(scheme, host, port, development)
    return _pattern(scheme, host, _canonical_port(scheme, port), credentials)


def _any_port(scheme: str, host: str, port: str, development: bool) -> str:
    host = _canonical_host(host)
    if port != "*" or host not in _LOOPBACK or not development:
        raise OriginError("016")
    return _join(scheme, host, "*")


def _pattern(scheme: str, host: str, port: str, credentials: bool) -> _Pattern:
    first, _, domain = host.partition(".")
    if "*" in domain:
        raise OriginError("012")
    if not domain or "." not in domain:
        raise OriginError("019")
    # The star is stood in for by a letter, so that the label and the domain pass the same checks as exact ones.
    domain = _canonical_host(domain)
    label = _canonical_host(f"{first.replace('*', _STAND_IN)}.{domain}").partition(".")[0]
    before, _, after = first.lower().partition("*")
    if label != before + _STAND_IN + after:
        raise OriginError("018")
    if credentials and _under_shared_suffix(domain):
        raise OriginError("015")
    if not before and not after and _is_shared_suffix(domain):
        raise OriginError("014")
    return _Pattern(f"{scheme}://{before}", after, _join("", domain, port))


def _fills(head: bytes, before: bytes, after: bytes) -> bool:
    """The first label (with its scheme) is `before` + at least one letter, digit or hyphen + `after`."""
    inside = len(head) - len(before) - len(after)
    if inside < 1 or not head.startswith(before) or not head.endswith(after):
        return False
    if len(head) - head.index(b"//") - 2 > 63:
        return False
    return not head[len(before) : len(before) + inside].translate(None, _LABEL_BYTES)


def _is_shared_suffix(domain: str) -> bool:
    """Strangers get hosts directly under this domain: a hosting suffix, or a registry such as `co.uk`."""
    if domain in SHARED_SUFFIXES:
        return True
    labels = domain.split(".")
    return len(labels) == 2 and len(labels[1]) == 2 and labels[0] in _REGISTRY_LABELS


def _under_shared_suffix(domain: str) -> bool:
    labels = domain.split(".")
    return any(".".join(labels[start:]) in SHARED_SUFFIXES for start in range(len(labels) - 1))


# -- parts of an origin -----------------------------------------------------------------------------------------------


def _split(text: str) -> tuple[str, str, str]:
    """Scheme, host (brackets kept) and port as written. Order of the checks: what is most likely meant comes first."""
    if not text.strip():
        raise OriginError("001")
    if text.lower() == "null":
        raise OriginError("004")
    if any(c.isspace() or not c.isprintable() for c in text if c not in _DEVIATIONS):
        raise OriginError("011")
    if any(mark in text for mark in ",;|") or text.count("://") > 1:
        raise OriginError("017")
    scheme, separator, rest = text.partition("://")
    if not separator:
        raise OriginError("006")
    scheme = scheme.lower()
    if scheme not in _PORTS:
        raise OriginError("007" if scheme else "006")
    rest = rest.removesuffix("/")
    if any(mark in rest for mark in "/?#"):
        raise OriginError("005")
    if "@" in rest:
        raise OriginError("008")
    return (scheme, *_split_port(rest))


def _split_port(authority: str) -> tuple[str, str]:
    if authority.startswith("["):
        address, bracket, port = authority.partition("]")
        if not bracket or (port and not port.startswith(":")):
            raise OriginError("009")
        return f"{address}]", _named_port(port)
    host, colon, port = authority.partition(":")
    return host, _named_port(colon + port)


def _named_port(text: str) -> str:
    if text == ":":
        raise OriginError("010")
    return text[1:]


def _canonical_port(scheme: str, port: str) -> str:
    if not port:
        return ""
    if not set(port) <= _DIGITS or len(port) > 5 or not 0 < int(port) < 65536:
        raise OriginError("010")
    number = str(int(port))
    return "" if number == _PORTS[scheme] else number


def _canonical_host(host: str) -> str:
    if host.startswith("["):
        return _canonical_ipv6(host[1:-1])
    if len(host) > 253:
        raise OriginError("009")
    name = _punycode(host)
    labels = name.split(".")
    if len(name) > 253 or not all(0 < len(label) < 64 and set(label) <= _LABEL for label in labels):
        raise OriginError("009")
    # WHATWG URL, "ends in a number": such a host is an IPv4 address or nothing.
    if set(labels[-1]) <= _DIGITS or labels[-1].startswith("0x"):
        return _canonical_ipv4(name)
    return name


def _punycode(host: str) -> str:
    if host.isascii():
        return host.lower()
    if not _DEVIATIONS.isdisjoint(host):
        raise OriginError("018")
    try:
        return host.lower().encode("idna").decode("ascii").lower()
    except UnicodeError:
        raise OriginError("009") from None


def _canonical_ipv4(text: str) -> str:
    try:
        return str(IPv4Address(text))
    except ValueError:
        raise OriginError("009") from None


def _canonical_ipv6(text: str) -> str:
    try:
        address = IPv6Address(text)
    except ValueError:
        raise OriginError("009") from None
    if address.scope_id is not None:
        raise OriginError("009")
    mapped = address.ipv4_mapped
    if mapped is not None:
        # Browsers write groups; newer Pythons would write the dotted form.
        return f"[::ffff:{int(mapped) >> 16:x}:{int(mapped) & 0xFFFF:x}]"
    return f"[{address.compressed}]"


def _join(scheme: str, host: str, port: str) -> str:
    authority = f"{host}:{port}" if port else host
    return f"{scheme}://{authority}" if scheme else authority


def _is_serialised_port(port: bytes) -> bool:
    return port.isdigit() and len(port) <= 5 and not port.startswith(b"0") and int(port) < 65536
