"""Labelled samples for the redactor: made-up values of every kind in many spellings, in many sentences; benign lines.

Everything is generated from a fixed seed, so that no real credential or person is in the repository and no scanner
takes a file of it for a leak. `SAMPLES[kind]` holds `Sample`s; a few of each kind are hard on purpose.
"""

from __future__ import annotations

import base64
import json
import random
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import quote

RNG = random.Random(20_261_125)
ALNUM = string.ascii_letters + string.digits
HEX = "0123456789abcdef"
LOWER = string.ascii_lowercase + string.digits
UPPER = string.ascii_uppercase + string.digits


@dataclass(frozen=True)
class Sample:
    """A text and what in it must not survive; `around` must."""

    text: str
    value: str
    around: tuple[str, ...] = ()


def draw(alphabet: str, count: int) -> str:
    """Random characters, at least one digit and one letter where there are both."""
    found = "".join(RNG.choice(alphabet) for _ in range(count - 2))
    return found + RNG.choice([c for c in alphabet if c.isalpha()] or alphabet) + RNG.choice(
        [c for c in alphabet if c.isdigit()] or alphabet
    )  # fmt: skip


def uuid() -> str:
    """An id in five groups."""
    return "-".join(draw(HEX, count) for count in (8, 4, 4, 4, 12))


def luhn_digit(digits: str) -> str:
    """The check digit behind these."""
    total = 0
    for place, char in enumerate(reversed(digits)):
        number = int(char) * (2 if place % 2 == 0 else 1)
        total += number - 9 if number > 9 else number
    return str(-total % 10)


def card(prefix: str, length: int) -> str:
    """A number that passes Luhn."""
    body = prefix + "".join(RNG.choice(string.digits) for _ in range(length - len(prefix) - 1))
    return body + luhn_digit(body)


def iban(country: str, bban: str) -> str:
    """An account number with right check digits."""
    number = int("".join(str(int(char, 36)) for char in bban + country + "00"))
    return f"{country}{98 - number % 97:02d}{bban}"


# -- sentences

SENTENCES = (
    "{}",
    "value {} was refused",
    "customer wrote: please use {} from now on",
    "[{}]",
    '{{"note": "{}"}}',
    "{{'note': '{}'}}",
    "2026-01-02 03:04:05 ERROR app.orders ({}) failed",
    "got {}, expected nothing",
    "first line\nsecond {} line",
    "<td>{}</td>",
    "x={};",
    "({}).",
)


WORDS = ("refused", "customer wrote", "app.orders", "second", "line")


def spread(values: list[str], kinds: tuple[str, ...] = SENTENCES) -> list[Sample]:
    """Each value in three sentences of its own."""
    found = []
    for number, value in enumerate(values):
        for step in range(3):
            sentence = kinds[(number * 3 + step) % len(kinds)]
            words = tuple(word for word in WORDS if word in sentence)
            found.append(Sample(sentence.format(value), value, words))
    return found


# -- personal data


def emails() -> list[Sample]:
    """Addresses of many forms."""
    names = ("anna", "anna.bell", "a.b.c", "info", "x_y", "first-last", "user+tag", "o'neil", "müller", "иван", "1234")
    domains = ("example.com", "mail.example.co.uk", "example.museum", "sub.exämple.de", "xn--bcher-kva.example", "e.io")
    plain = [f"{name}@{domain}" for name in names for domain in domains if name != "o'neil" or "'" in name]
    found = spread(plain)
    encoded = [quote(address) for address in plain if address.isascii() and "'" not in address]
    found += [Sample(f"/unsubscribe?who={value}&x=1", value, ("x=1",)) for value in encoded]
    found += [Sample(f"mailto:{value}", value) for value in plain[:12]]
    found += [Sample(f"Anna Bell <{value}>", value, ("Anna Bell",)) for value in plain[:12]]
    return found


def cards() -> list[Sample]:
    """All issuers, plain, spaced, dashed."""
    prefixes = (("4", 16), ("51", 16), ("55", 16), ("2221", 16), ("34", 15), ("37", 15), ("36", 14), ("6011", 16),
                ("65", 16), ("3528", 16), ("62", 16), ("50", 16), ("4", 19), ("4", 13))  # fmt: skip
    values = []
    for prefix, length in prefixes:
        for style in range(6):
            number = card(prefix, length)
            fours = [number[i : i + 4] for i in range(0, length, 4)]
            values.append((number, " ".join(fours), "-".join(fours))[style % 3])
    return spread(values)


def phones() -> list[Sample]:
    """International, national with brackets, US; bare digits behind a word."""

    def digits(count: int) -> str:
        return "".join(RNG.choice("23456789") for _ in range(count))

    values = []
    for _ in range(6):
        values += [
            f"+1{digits(10)}", f"+1 {digits(3)} {digits(3)} {digits(4)}", f"+1-{digits(3)}-{digits(3)}-{digits(4)}",
            f"+44 20 {digits(4)} {digits(4)}", f"+49 {digits(3)} {digits(7)}", f"+49 (0) {digits(3)} {digits(6)}",
            f"+33 6 {digits(2)} {digits(2)} {digits(2)} {digits(2)}", f"+91 {digits(5)} {digits(5)}",
            f"0044 20 {digits(4)} {digits(4)}", f"({digits(3)}) {digits(3)}-{digits(4)}",
            f"{digits(3)}-{digits(3)}-{digits(4)}", f"{digits(3)}.{digits(3)}.{digits(4)}",
            f"020 {digits(4)} {digits(4)}", f"06 {digits(2)} {digits(2)} {digits(2)} {digits(2)}",
            f"0171 {digits(7)}", f"{digits(3)} {digits(3)} {digits(4)}",
            f"{digits(3)}-{digits(3)}-{digits(4)}x{digits(4)}", f"001-{digits(3)}-{digits(3)}-{digits(4)}x{digits(3)}",
            f"0{digits(1)}.{digits(2)}.{digits(2)}.{digits(2)}.{digits(2)}",
            f"0{digits(2)} {digits(3)} {digits(2)} {digits(2)}", f"0{digits(3)} {digits(2)} {digits(2)} {digits(2)}",
        ]  # fmt: skip
    found = spread(values)
    words = (
        "phone {}", "call me at {}", "Tel.: {}", "mobile: {}", "whatsapp {}", "fax {}", "{} office", "{} fax",
        "you can call {}", "Phone:\\n{}\\n",
    )  # fmt: skip
    bare = [digits(RNG.choice((7, 9, 10))) for _ in range(60)]
    found += [Sample(words[number % 10].format(value), value) for number, value in enumerate(bare)]
    return found


def ssns() -> list[Sample]:
    """Written with dashes or blanks; bare behind a word."""

    def parts() -> tuple[str, str, str]:
        return f"{RNG.randrange(1, 665):03d}", f"{RNG.randrange(1, 99):02d}", f"{RNG.randrange(1, 9999):04d}"

    values = [("-" if n % 3 else " ").join(parts()) for n in range(60)]
    found = spread(values)
    words = ("ssn {}", "SSN: {}", "social security number {}", "his social is {}")
    found += [Sample(words[n % 4].format(v), v) for n, v in enumerate("".join(parts()) for _ in range(24))]
    return found


def ibans() -> list[Sample]:
    """A dozen countries, compact, in groups, lower case."""
    shapes = {"DE": "d18", "GB": "a4d14", "FR": "d23", "NL": "a4d10", "ES": "d20", "IT": "a1d22", "CH": "d17",
              "AT": "d16", "BE": "d12", "PL": "d24", "SE": "d20", "NO": "d11", "IE": "a4d14", "PT": "d21"}  # fmt: skip
    values = []
    for country, shape in shapes.items():
        for style in range(4):
            bban = ""
            for piece in shape.replace("a", " a").replace("d", " d").split():
                alphabet = string.ascii_uppercase if piece[0] == "a" else string.digits
                bban += "".join(RNG.choice(alphabet) for _ in range(int(piece[1:])))
            number = iban(country, bban)
            grouped = " ".join(number[i : i + 4] for i in range(0, len(number), 4))
            values.append((number, grouped, number.lower(), grouped.replace(" ", "-"))[style])
    return spread(values)


def ips() -> list[Sample]:
    """Version 4 and 6, with ports and prefixes."""
    four = [".".join(str(RNG.randrange(11, 240)) for _ in range(4)) for _ in range(50)]
    six = [":".join(draw(HEX, 4).lstrip("0") or "1" for _ in range(8)) for _ in range(25)]
    six += [f"2001:db8:{draw(HEX, 4)}::{draw(HEX, 4)}:{draw(HEX, 3)}" for _ in range(20)]
    found = spread([*four, *six], tuple(s for s in SENTENCES if "1.2" not in s))
    found += [Sample(f"client {value}:443 closed", value, ("closed",)) for value in four[:15]]
    found += [Sample(f"route {value}/28 via gw", value, ("via gw",)) for value in four[15:30]]
    return found


def births_and_passports() -> list[Sample]:
    """Only behind a word that says what they are."""
    days = ("1980-03-07", "07/03/1980", "7.3.1980", "3 March 1980", "March 3, 1980", "07 Mar 1980", "1980/03/07")
    words = ("dob: {}", "date of birth {}", "born on {}", "birthday: {}", "Birth date = {}", '"dob": "{}"')
    found = [Sample(word.format(day), day) for word in words for day in days]
    for word in ("passport {}", "passport no. {}", "Passport number: {}", "passport nr {}", "passport #{}"):
        for _ in range(5):
            value = RNG.choice(("C", "AB", "")) + draw(string.digits, RNG.choice((7, 8, 9)))
            found.append(Sample(word.format(value), value))
    return found


# -- credentials of known vendors

VENDORS: dict[str, Callable[[], str]] = {
    "stripe secret": lambda: "sk_" + "live_" + draw(ALNUM, 24),
    "stripe test": lambda: "sk_" + "test_" + draw(ALNUM, 99),
    "stripe restricted": lambda: "rk_" + "live_" + draw(ALNUM, 24),
    "webhook secret": lambda: "whsec_" + draw(ALNUM, 32),
    "openai": lambda: "sk-" + "proj-" + draw(ALNUM + "_-", 60),
    "openai old": lambda: "sk-" + draw(ALNUM, 48),
    "anthropic": lambda: "sk-" + "ant-api03-" + draw(ALNUM + "_-", 90),
    "supabase token": lambda: "sbp_" + draw(HEX, 40),
    "supabase secret": lambda: "sb_" + "secret_" + draw(ALNUM, 31),
    "aws": lambda: "AKIA" + draw(string.ascii_uppercase + "234567", 16),
    "aws temporary": lambda: "ASIA" + draw(string.ascii_uppercase + "234567", 16),
    "github": lambda: "ghp_" + draw(ALNUM, 36),
    "github app": lambda: "ghs_" + draw(ALNUM, 36),
    "github fine-grained": lambda: "github_" + "pat_" + draw(ALNUM, 22) + "_" + draw(ALNUM, 59),
    "gitlab": lambda: "glpat-" + draw(ALNUM + "_-", 20),
    "gitlab runner": lambda: "glrt-" + draw(ALNUM + "_-", 20),
    "google": lambda: "AIza" + draw(ALNUM + "_-", 35),
    "google oauth": lambda: "ya29." + draw(ALNUM + "_-", 100),
    "google client": lambda: "GOCSPX-" + draw(ALNUM + "_-", 28),
    "google refresh": lambda: "1//0" + draw(ALNUM + "_-", 60),
    "slack bot": lambda: "xoxb-" + draw(string.digits, 12) + "-" + draw(ALNUM, 24),
    "slack user": lambda: "xoxp-" + draw(string.digits, 12) + "-" + draw(HEX, 32),
    "slack app": lambda: "xapp-1-A" + draw(string.digits, 10) + "-" + draw(HEX, 60),
    "slack hook": lambda: "hooks.slack.com/services/T" + draw(ALNUM, 8) + "/B" + draw(ALNUM, 8) + "/" + draw(ALNUM, 24),
    "twilio": lambda: "SK" + draw(HEX, 32),
    "sendgrid": lambda: "SG." + draw(ALNUM + "_-", 22) + "." + draw(ALNUM + "_-", 43),
    "npm": lambda: "npm_" + draw(ALNUM, 36),
    "pypi": lambda: "pypi-AgEIcHlwaS5vcmc" + draw(ALNUM + "_-", 80),
    "rubygems": lambda: "rubygems_" + draw(HEX, 48),
    "crates": lambda: "cio" + draw(ALNUM, 32),
    "hugging face": lambda: "hf_" + draw(string.ascii_letters, 34),
    "shopify": lambda: "shpat_" + draw(HEX, 32),
    "digitalocean": lambda: "dop_v1_" + draw(HEX, 64),
    "grafana": lambda: "glsa_" + draw(ALNUM, 32) + "_" + draw(HEX, 8),
    "linear": lambda: "lin_api_" + draw(ALNUM, 40),
    "notion": lambda: "ntn_" + draw(ALNUM, 46),
    "notion old": lambda: "secret_" + draw(ALNUM, 43),
    "figma": lambda: "figd_" + draw(ALNUM + "_-", 40),
    "mailgun": lambda: "key-" + draw(HEX, 32),
    "telegram": lambda: draw(string.digits, 10) + ":" + draw(ALNUM + "_-", 35),
    "discord": lambda: "M" + draw(ALNUM, 23) + "." + draw(ALNUM, 6) + "." + draw(ALNUM + "_-", 27),
    "1password": lambda: "ops_eyJ" + draw(ALNUM, 200),
    "vault": lambda: "hvs." + draw(ALNUM, 24),
    "sentry": lambda: "sntrys_" + draw(ALNUM + "_", 60),
    "docker": lambda: "dckr_pat_" + draw(ALNUM + "_-", 27),
    "groq": lambda: "gsk_" + draw(ALNUM, 52),
    "xai": lambda: "xai-" + draw(ALNUM, 80),
    "perplexity": lambda: "pplx-" + draw(ALNUM, 48),
    "replicate": lambda: "r8_" + draw(ALNUM, 37),
    "square": lambda: "sq0atp-" + draw(ALNUM + "_-", 22),
    "square secret": lambda: "sq0csp-" + draw(ALNUM + "_-", 43),
    "vercel": lambda: "vcp_" + draw(ALNUM, 40),
    "netlify": lambda: "nfp_" + draw(ALNUM, 36),
    "atlassian": lambda: "ATATT3" + draw(ALNUM + "_-", 180),
    "databricks": lambda: "dapi" + draw(HEX, 32),
    "postman": lambda: "PMAK-" + draw(HEX, 24) + "-" + draw(HEX, 34),
    "planetscale": lambda: "pscale_" + "tkn_" + draw(ALNUM + "_-", 43),
    "doppler": lambda: "dp.pt." + draw(ALNUM, 43),
    "pulumi": lambda: "pul-" + draw(HEX, 40),
    "new relic": lambda: "NRAK-" + draw(string.ascii_uppercase + string.digits, 27),
    "age": lambda: "AGE-SECRET-KEY-1" + draw(string.ascii_uppercase + string.digits, 58),
    "airtable": lambda: "pat" + draw(ALNUM, 14) + "." + draw(HEX, 64),
    "brevo": lambda: "xkeysib-" + draw(HEX, 64) + "-" + draw(ALNUM, 16),
    "resend": lambda: "re_" + draw(ALNUM, 8) + "_" + draw(ALNUM, 24),
    "neon": lambda: "napi_" + draw(string.ascii_lowercase + string.digits, 64),
    "langsmith": lambda: "lsv2_pt_" + draw(HEX, 32) + "_" + draw(HEX, 10),
    "posthog": lambda: "phx_" + draw(ALNUM, 43),
    "mailchimp": lambda: draw(HEX, 32) + "-us14",
    "dropbox": lambda: "sl." + draw(ALNUM + "_-", 130),
    "tailscale": lambda: "tskey-auth-" + draw(ALNUM, 12) + "-" + draw(ALNUM, 32),
    "nvidia": lambda: "nvapi-" + draw(ALNUM + "_-", 64),
    "stripe production": lambda: "sk_" + "prod_" + draw(ALNUM, 24),
    "aws service": lambda: "A3TX" + draw(string.ascii_uppercase + "234567", 16),
    "gitlab routable": lambda: "glpat-" + draw(ALNUM + "_-", 40) + ".01." + draw(LOWER, 7),
    "gitlab routable runner": lambda: "glrt-t1_" + draw(ALNUM + "_-", 40) + "." + draw(LOWER, 9),
    "gitlab registration": lambda: "GR1348941" + draw(ALNUM + "_-", 20),
    "slack short": lambda: "xoxr-" + draw(ALNUM, 9),
    "slack browser": lambda: "xoxd-" + draw(ALNUM + "/+", 120),
    "clojars": lambda: "CLOJARS_" + draw(LOWER, 60),
    "hugging face organisation": lambda: "api_org_" + draw(string.ascii_letters, 34),
    "mailgun public": lambda: "pubkey-" + draw(HEX, 32),
    "mailgun signing": lambda: draw(HEX, 32) + "-" + draw(HEX, 8) + "-" + draw(HEX, 8),
    "1password padded": lambda: "ops_eyJ" + draw(ALNUM + "+/", 300) + "==",
    "1password secret": lambda: "A3-" + "-".join(draw(UPPER, count) for count in (6, 11, 5, 5, 5)),
    "1password secret split": lambda: "A3-" + "-".join(draw(UPPER, count) for count in (6, 6, 5, 5, 5, 5)),
    "vault long": lambda: "hvb." + draw(ALNUM + "_-", 300),
    "vault old": lambda: "s." + draw(string.ascii_lowercase, 11) + draw(UPPER, 13),
    "square production": lambda: "EAAAEO" + draw(ALNUM + "_-", 58),
    "square short": lambda: "EAAAl" + draw(ALNUM + "_-", 30),
    "facebook": lambda: "EAAC" + draw(ALNUM, 300),
    "facebook app": lambda: draw(string.digits, 15) + "|" + draw(ALNUM + "_-", 27),
    "databricks numbered": lambda: "dapi" + draw(HEX, 32) + "-2",
    "new relic insert": lambda: "NRII-" + draw(ALNUM + "_-", 32),
    "new relic browser": lambda: "NRJS-" + draw(HEX, 19),
    "harness": lambda: "pat." + draw(ALNUM + "_-", 22) + "." + draw(HEX, 24) + "." + draw(ALNUM, 20),
    "harness service": lambda: "sat." + draw(ALNUM + "_-", 22) + "." + draw(HEX, 24) + "." + draw(ALNUM, 20),
    "dropbox newer": lambda: "sl.u." + draw(ALNUM + "_-", 600),
    "dropbox lasting": lambda: draw(ALNUM, 11) + "A" * 10 + draw(ALNUM + "_-=", 43),
    "adobe": lambda: "p8e-" + draw(ALNUM, 32),
    "alibaba": lambda: "LTAI" + draw(ALNUM, 20),
    "artifactory": lambda: "AKCp" + draw(ALNUM, 69),
    "artifactory reference": lambda: "cmVmd" + "GtuOj" + draw(ALNUM, 54),
    "authress": lambda: (
        "sc_" + draw(LOWER, 12) + "." + draw(LOWER, 4) + ".acc_" + draw(LOWER, 14) + "." + draw(ALNUM, 60)
    ),
    "entra": lambda: draw(ALNUM, 3) + "8Q~" + draw(ALNUM + "_.-", 34),
    "clickhouse": lambda: "4b1d" + draw(ALNUM, 38),
    "cloudflare origin": lambda: "v1.0-" + draw(HEX, 24) + "-" + draw(HEX, 146),
    "defined networking": lambda: "dnkey-" + draw(UPPER, 26) + "-" + draw(UPPER, 52),
    "duffel": lambda: "duffel_" + "live_" + draw(ALNUM + "_-", 43),
    "dynatrace": lambda: "dt0c01." + draw(UPPER, 24) + "." + draw(UPPER, 64),
    "easypost": lambda: "EZAK" + draw(ALNUM, 54),
    "easypost test": lambda: "EZTK" + draw(ALNUM, 54),
    "flutterwave": lambda: "FLWSECK_" + "TEST-" + draw(HEX, 32) + "-X",
    "flutterwave encryption": lambda: "FLWSECK_" + "TEST-" + draw(HEX, 12),
    "fly": lambda: "fo1_" + draw(ALNUM + "_-", 43),
    "fly macaroon": lambda: "fm2_" + draw(ALNUM + "+/", 400) + "==",
    "frame.io": lambda: "fio-u-" + draw(ALNUM + "_-", 64),
    "gocardless": lambda: "live_" + draw(string.ascii_lowercase, 10) + draw(UPPER, 14) + draw(ALNUM + "_-", 16),
    "lob": lambda: "live_" + draw(HEX, 35),
    "lob test": lambda: "test_" + draw(HEX, 35),
    "lob public": lambda: "live_pub_" + draw(HEX, 31),
    "terraform": lambda: draw(ALNUM, 14) + ".atlasv1." + draw(ALNUM + "_-", 66),
    "heroku": lambda: "HRKU-AA" + draw(ALNUM + "_-", 58),
    "infracost": lambda: "ico-" + draw(ALNUM, 30) + "zQ",
    "42": lambda: "s-s4t2ud-" + draw(HEX, 64),
    "jwt in base64": lambda: "ZXlKaGJHY2lPaU" + draw(ALNUM, 120) + "==",
    "mapbox": lambda: "pk." + draw(ALNUM, 60) + "." + draw(ALNUM, 22),
    "mapbox secret": lambda: "sk." + draw(ALNUM, 80) + "." + draw(ALNUM, 22),
    "maxmind": lambda: draw(ALNUM, 6) + "_" + draw(ALNUM, 29) + "_mmk",
    "octopus": lambda: "API-" + "X" + draw(UPPER, 25),
    "openshift": lambda: "sha256~" + draw(ALNUM + "_-", 43),
    "prefect": lambda: "pnu_" + draw(ALNUM, 36),
    "readme": lambda: "rdme_" + draw(LOWER, 70),
    "scalingo": lambda: "tk-us-" + draw(ALNUM + "_-", 48),
    "settlemint": lambda: "sm_aat_" + draw(ALNUM, 16),
    "settlemint personal": lambda: "sm_pat_" + draw(ALNUM, 16),
    "shippo": lambda: "shippo_" + "live_" + draw(HEX, 40),
    "sidekiq": lambda: "BUNDLE_GEMS__CONTRIBSYS__COM=" + draw(HEX, 8) + ":" + draw(HEX, 8),
    "teams hook": lambda: "webhook.office.com/webhookb2/" + uuid() + "@" + uuid() + "/IncomingWebhook/" + draw(HEX, 32),
    "telegram short": lambda: draw(string.digits, 7) + ":AA" + draw(ALNUM + "_-", 33),
    "twitter": lambda: "A" * 22 + draw(ALNUM, 20) + "%2B" + draw(ALNUM, 60),
    "typeform": lambda: "tfp_" + draw(ALNUM, 44) + "_" + draw(ALNUM, 14),
    "yandex": lambda: "t1." + draw(ALNUM + "_-", 180) + "." + draw(ALNUM + "_-", 86),
    "yandex key": lambda: "AQVN" + draw(ALNUM + "_-", 36),
    "yandex storage": lambda: "YCAJE" + draw(ALNUM + "_-", 30) + "x4Tq9",
}


def vendors() -> list[Sample]:
    """Two keys of each vendor, each in three sentences."""
    return spread([make() for make in VENDORS.values() for _ in range(2)])


def jwts_and_pems() -> list[Sample]:
    """Signed and encrypted tokens, private keys whole, cut and escaped."""
    values = []
    for _ in range(12):
        head = base64.urlsafe_b64encode(b'{"alg":"RS256","typ":"JWT"}').rstrip(b"=").decode()
        body = base64.urlsafe_b64encode(json.dumps({"sub": draw(ALNUM, 8), "exp": 1}).encode()).rstrip(b"=").decode()
        values.append(f"{head}.{body}.{draw(ALNUM + '_-', 86)}")
    found = spread(values)
    for kind in ("RSA ", "EC ", "", "OPENSSH ", "ENCRYPTED "):
        body = draw(ALNUM + "+/", 64)
        lines = f"-----BEGIN {kind}PRIVATE KEY-----\n{body}\n{draw(ALNUM, 40)}=\n-----END {kind}PRIVATE KEY-----"
        found += [Sample(f"loaded {lines} ok", body, ("loaded",)), Sample(json.dumps({"k": lines}), body)]
        found.append(Sample(lines[:110], body[:40]))
    return found


# -- carriers: the value has no shape, what stands around it tells

NAMES = (
    "password", "db_password", "userPassword", "api_key", "x-api-key", "client_secret", "accessToken", "refresh_token",
    "secret", "SECRET_KEY", "privateKey", "sessionid", "auth_token", "pwd", "passphrase",
)  # fmt: skip


def pairs() -> list[Sample]:
    """`key=value` in every spelling, for many names."""
    forms = ("{n}={v}", "{n}: {v}", "{n} = {v}", "{n}='{v}'", '{n}="{v}"', '"{n}": "{v}"', "'{n}': '{v}'",
             '{{\\"{n}\\": \\"{v}\\"}}', "{n} => {v}", "{n}:={v}", "a=1&{n}={v}&b=2", "?{n}={v}", "--{n} {v}",
             "--{n}={v}",
             "<{n}>{v}</{n}>", "({n}={v!r})", "{n}={v}, user=bob", "{{{n}: {v}}}")  # fmt: skip
    found = []
    for number, name in enumerate(NAMES * 4):
        for step in range(4):
            form = forms[(number * 4 + step) % len(forms)]
            value = draw(ALNUM, RNG.choice((6, 9, 14, 22)))
            around = tuple(word for word in ("user=bob", "b=2", "a=1") if word in form)
            found.append(Sample("login failed: " + form.format(n=name, v=value), value, ("login failed", *around)))
    return found


def carriers() -> list[Sample]:
    """URLs, schemes, command lines, SQL, database details, headers, forms, reprs."""
    forms = (
        "postgresql://app:{}@db.internal/x", "redis://:{}@cache:6379/0", "https://u:{}@x.example/p",
        "Authorization: Bearer {}", "authorization: Basic {}", "Authorization: Negotiate {}",
        "Proxy-Authorization: Digest username=a, response={}", "Cookie: session={}; theme=dark",
        "Set-Cookie: sid={}; Path=/",
        "curl -u admin:{} https://x.example", "tool --api-key {} run", "mysql -h db --password={}",
        "CREATE USER a IDENTIFIED BY '{}'", "ALTER ROLE a PASSWORD '{}'",
        "DETAIL:  Key (email)=({}) already exists.", "[SQL: INSERT INTO t]\n[parameters: ('{}', 1)]",
        "[(b'host', b'x'), (b'authorization', b'{}')]", "[['x-api-key', '{}']]", "<password>{}</password>",
        'Content-Disposition: form-data; name="password"\r\n\r\n{}\r\n--b', "SecretStr('{}') password=SecretStr('{}')",
        "input_value={{'password': '{}'}}, input_type=dict", "https://x.example/cb?code={}&state=1x",
        "GET /cb?access_token={} HTTP/1.1", "X-Amz-Signature={}&X-Amz-Date=1", "sig={}&se=2026",
    )  # fmt: skip
    found = []
    for form in forms:
        for _ in range(6):
            value = draw(ALNUM, RNG.choice((10, 16, 24)))
            if form.startswith("SecretStr"):
                found.append(Sample(f"Settings(password=SecretStr('{value}'))", value))
            else:
                found.append(Sample(form.format(value), value))
    return found


def encoded() -> list[Sample]:
    """Percent-encoded once and twice, JSON escapes."""
    found = []
    for name in NAMES[:10]:
        for _ in range(4):
            value = draw(ALNUM, 12)
            once = quote(f"a=1&{name}={value}&b=2", safe="")
            escaped = f"\\u007b\\u0022{name}\\u0022:\\u0022{value}\\u0022\\u007d"
            found += [
                Sample(f"next=%2Fcb%3F{once}", value),
                Sample(f"url={quote(once, safe='')}", value),
                Sample(escaped, value),
                Sample(f"body=%7B%22{name}%22%3A%22{value}%22%7D", value),
            ]
    return found


BREAKS = ("\\n", "\\t", "\\r\\n", "\\\\n", "\x1b[31m", "\\x1b[0;33m")


COLOURED = (
    "\x1b[36m{0}\x1b[0m=\x1b[35m{1}\x1b[0m", "{0}\x1b[0m={1}", "\x1b[1;31m{0}=\x1b[0m{1}",
    "\x1b[38;2;200;100;100m{0}\x1b[0m: {1}",
    "\\x1b[36m{0}\\x1b[0m=\\x1b[35m{1}\\x1b[0m", "\\u001b[32m{0}\\u001b[0m: {1}", "x\\n\\033[1m{0}\\033[0m={1}",
    'name="{0}"\\r\\n\\r\\n{1}\\r\\n--b', 'name=\\"{0}\\"\\r\\nContent-Type: text/plain\\r\\n\\r\\n{1}\\r\\n',
)  # fmt: skip


def coloured() -> list[Sample]:
    """Pairs whose name, mark or value has a colour of its own; parts of a form as reprs print them."""
    found = []
    for form in COLOURED:
        for name in ("password", "api_key", "DB_PASSWORD"):
            value = draw(LOWER, 12)
            found.append(Sample(f"first {form.format(name, value)}", value, ("first",)))
    return found


def behind_breaks(*kinds: list[Sample]) -> list[Sample]:
    """Values right behind a break as JSON and reprs print it, or behind a terminal's colour."""
    picked = [sample for samples in kinds for sample in samples[:: max(1, len(samples) // 12)]]
    return [
        Sample(f"first line{BREAKS[n % len(BREAKS)]}{sample.value} and more", sample.value)
        for n, sample in enumerate(picked)
        if sample.value in sample.text and not sample.value.isalnum()
    ]


SAMPLES: dict[str, list[Sample]] = {
    "e-mail": emails(),
    "card": cards(),
    "phone": phones(),
    "SSN": ssns(),
    "IBAN": ibans(),
    "IP": ips(),
    "birth, passport": births_and_passports(),
    "vendor keys": vendors(),
    "JWT, PEM": jwts_and_pems(),
    "key=value": pairs(),
    "carriers": carriers(),
    "encoded": encoded(),
}
BROKEN = ("e-mail", "card", "IP", "vendor keys")
SAMPLES["coloured"] = coloured()
SAMPLES["behind breaks"] = behind_breaks(*(SAMPLES[kind] for kind in BROKEN))


# -- what must stay as it is


def benign() -> Iterator[str]:
    """Log lines, versions, ids, code and prose without anything to hide."""
    yield from (line.strip() for line in _LINES.strip().splitlines())
    number = RNG.randrange
    for _ in range(40):
        ids = (draw(HEX, 8), draw(HEX, 4), draw(HEX, 4), draw(HEX, 4), draw(HEX, 12))
        yield f"job {'-'.join(ids)} finished in {number(1, 9000)} ms"
        yield f"commit {draw(HEX, 40)} by ci"
        yield f"trace {draw(HEX, 32)} span {draw(HEX, 16)}"
        yield f"epoch {number(1_600_000_000, 1_900_000_000)} ms {number(1_600_000_000_000, 1_900_000_000_000)}"
        yield f"customer cus_{draw(ALNUM, 14)} paid pi_{draw(ALNUM, 24)}"
        yield f"checkout cs_test_{draw(ALNUM, 58)} event evt_{draw(ALNUM, 24)}"
        yield f"live_{draw(HEX, 24)} and test_{draw(HEX, 32)}_x passed"
        yield f"order {number(10**7, 10**8)} of {number(100)} items, total {number(10**4)}.{number(10, 99)} EUR"
        yield f"01{draw('0123456789ABCDEFGHJKMNPQRSTVWXYZ', 24)} queued"
        yield f"v{number(20)}.{number(40)}.{number(90)} -> v{number(20)}.{number(40)}.{number(90)}-rc.{number(9)}"
        yield f"Mozilla/5.0 (X11; Linux x86_64; rv:{number(90, 140)}.0) Gecko/20100101 Firefox/{number(90, 140)}.0"
        yield f"Chrome/{number(90, 140)}.0.{number(1000, 9000)}.{number(10, 255)} Safari/537.36"
        day, clock = (
            f"{number(1, 28):02d}.{number(1, 12):02d}.2026",
            f"{number(24):02d}:{number(60):02d}:{number(60):02d}",
        )
        yield f"{day} {clock},{number(999):03d} INFO worker-{number(9)} ready"
        bad = card("4", 16)
        yield f"invoice {bad[:-1]}{(int(bad[-1]) + 1) % 10} archived"


_LINES = """
INFO:     Started server process [12345]
INFO:     Uvicorn running on http://127.0.0.1:8000 (Press CTRL+C to quit)
INFO:     Application startup complete.
[2026-01-02 03:04:05 +0000] [4711] [INFO] Booting worker with pid: 4711
GET /api/v1/clients?limit=20&offset=40&sort=-created_at HTTP/1.1 200 OK
POST /auth/login 401 in 12.5 ms
token_count=512 max_tokens: 4096 prompt_tokens=17 total_tokens=529
author=anna passenger: 3, monkey=1, keyboard: qwerty, primary_key=id
primary_key: id, foreign_key=client_id, partition_key: day, sort_key=created
password_min_length=12 password_changed_at: 2026-01-02 password policy: strict
email_verified=true has_password: true, requires_password=false
secret santa is on friday; the token ring was removed; basic authentication failed
bearer token missing; digest of the day; negotiate with the vendor
Key (id)= is no detail line; key: the one to the front door
SELECT id, name FROM clients WHERE org_id = %s ORDER BY created_at LIMIT 50
CREATE TABLE users (id uuid PRIMARY KEY, created timestamptz NOT NULL)
alembic.runtime.migration Running upgrade 1975ea83b712 -> 3fa2c9d81e0b, add invoices
sqlalchemy.engine.Engine BEGIN (implicit)
sqlalchemy.engine.Engine ROLLBACK
celery@worker-1 ready. mingle: searching for neighbors
Connected to amqp://127.0.0.1:5672// with 4 channels
Task portal.tasks.send[4f9d2d1e-63f1-4f6f-9c8a-2a7b0e5e1c33] succeeded in 0.031s: None
File "/srv/app/portal/views.py", line 112, in create_invoice
TypeError: unsupported operand type(s) for +: 'int' and 'str'
KeyError: 'amount'
ValueError: invalid literal for int() with base 10: 'abc'
pip install fastapi==0.165.0 pydantic>=2.12,<3 orjson~=3.10
requires-python = ">=3.11", license = "MIT", version = "0.1.0"
npm i react@18.2.0 @types/node@20.11.5 vite@5.1.4
docker pull python:3.11-slim@sha256:digest
sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
md5 d41d8cd98f00b204e9800998ecf8427e etag "33a64df551425fcc55e4d42a148795d9f25f89d4"
ETag: W/"5d8c72a5edda8d6a" Content-Length: 1234 Content-Type: application/json
Cache-Control: no-store, max-age=0 Vary: Origin, Accept-Encoding
Accept-Language: de-DE,de;q=0.9,en;q=0.8 Accept: text/html;q=0.9,*/*;q=0.8
Strict-Transport-Security: max-age=63072000; includeSubDomains; preload
traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01
memory 512.3 MiB of 2048 MiB, load 0.12 0.34 0.56, uptime 3 days, 4:05
disk /dev/sda1 87% used, inode 12345678, 4 of 8 cpus
retry 3 of 5 in 1.5 s, backoff=2.0, jitter=0.1
rate limit: 100 per minute, remaining 42, reset in 17 s
cron 0 3 * * 1-5 started; next run 2026-11-26T03:00:00Z
tenant t_0011223344556677 subject u_8899aabbccddeeff decision=allowed
lat 52.520008 lon 13.404954 zoom 12
the meeting is at 10:30 in room 4.02, bring 3 copies
chapter 1.2.3.4.5 of the manual, see section 4.1
ISBN 978-3-16-148410-0 and EAN 4006381333931
part no. 12-3456-78, model X100-200-300, serial A1B2C3D4
bus 100 leaves 08:15 08:45 09:15, platform 2
12:34:56.789 aa:bb:cc:dd:ee:ff joined the network
std::vector<int> a::b::c operator() -> noexcept
font-family: Inter, sans-serif; margin: 0 auto; color: #1a2b3c
rgba(255, 255, 255, 0.5) translate(10px, 20px)
kubectl get pods -n portal -o wide --sort-by=.status.startTime
git rebase -i HEAD~3 && git push --force-with-lease origin main
curl -sS -X POST -H 'Content-Type: application/json' https://api.example.com/v1/items
systemd[1]: user@1000.service: Succeeded.
image icon@2x.png loaded from /static/img/icon@2x.png
python -m pytest -q tests/test_views.py::test_create -k "not slow"
C:\\Program Files\\Python311\\python.exe -m portal
/usr/lib/python3.11/site-packages/starlette/routing.py
en_US.UTF-8 Europe/Berlin +02:00 GMT+1
100 200 300 400 500 600 700 800 900 1000
1,234,567.89 EUR, 98.6 F, 37.0 C, 1013.25 hPa, 299792458 m/s
score 0.8731 loss 0.00213 epoch 17/50 step 12000
{"status": "ok", "count": 3, "items": [1, 2, 3], "next": null}
{'level': 'info', 'logger': 'portal.jobs', 'duration_ms': 12.5}
password: None, token=null, secret: '', api_key=""
session_timeout=3600 cookie_consent=true csrf_enabled: true
idempotency_key_ttl=86400 public_key_url=/.well-known/jwks.json
please reset your password in the settings; a secret is required
live_session_dashboard_of_the_portal_v2_beta1 rendered, live_view_2 mounted
request API-01J9Z3K4M5N6P7Q8R9S0T1V2W3 queued, API-2026-REFERENCE moved
GET /static/img/ico-d41d8cd98f00b204e9800998ecf8427e.png 304
at s.addResizeListenerOnRow2X(app.js:1) at s.internationalization
YC_MAX_RETRY_COUNT_OF_STORAGE_UPLOADS_2 is 5
release v1.0-rc.1 on t1.micro, t1.2 of 3; sl.no 12; sat.2026-01-03 pat.example.org hvac.unit
commit 4b1d9f86d081884c7d659a2feaa0c55ad015a3bf4 4b1d81884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a0811
tfp_distributions_multivariate_normal_with_diagonal_covariance1 and ext_core.util.acc_test.unit
tests/test_d41d8cd98f00b204e9800998ecf8427e.py test_pub_4bf92f3577b34da6a3ce929d0e0e4736 passed
A3-LANDSCAPE pages, A3-POSTER-PRINTS-OF-WALLS, form A3-100200-300
padding AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==
blob EAAAAAAAAAAAAAAAAAAAAAAAAAAAAAEAAAAAAAAAAAA and x/EAAADyAAAABgAAAAAAAACamZmZmZnpP/MAAA
1767322645000123|4bf92f3577b34da6a3ce929d0e0e4736|GET|200 12345:app.orders.service.views.create_invoice
pool tk-us-east-1-general-purpose-workers-arm64-spot-blue9 scaled
sha256~ of the file differs, Q~ and _mmk are no marks by themselves; dt0c01.example
the signature does not match; the certificate expired 3 days ago
oauth scopes: openid profile offline_access
refund 25 of 100, balance 75, currency=EUR, country=DE
"""

BENIGN: list[str] = list(benign())
