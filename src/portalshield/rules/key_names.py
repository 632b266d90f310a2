"""Which names announce a secret or a person: decided on the words of a name, not on substrings.

`userPassword`, `DB_PASSWORD`, `x-api-key`, `HTTP_X_API_KEY` and `a[token]` are split into words. Words and runs of two
or three neighbours are looked up in one table; words that turn the meaning (`token_count`, `email_verified`,
`has_password`) veto. Substring lists destroy `author`, `monkey` and `primary_key`; exact lists miss `userPassword`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import unquote

MAX_NAME = 128
"""Characters of a name that are looked at; a longer one is judged by its end."""
MEMO_ENTRIES = 4096
"""Names whose verdict is remembered; a full memo is emptied, so made-up names cost time but never memory."""

_WORD = re.compile(r"[A-Z]{1,64}(?![a-z])|[A-Z]?[a-z]{1,64}+|[^\W\d_A-Za-z]{1,64}+")

# Sensitive wherever they stand; neighbours are tried joined, so `api_key`, `apiKey` and `apikey` are one entry.
_SECRETS = """
    password passwd passphrase passcode pwd passwort kennwort contrasena motdepasse senha wachtwoord parola
    secret token credential cred jwt bearer authorization authorisation cookie setcookie csrf xsrf signature sig hmac
    salt otp totp hotp apikey apisecret secretkey privatekey privkey accesskey accesskeyid accesstoken refreshtoken
    encryptionkey decryptionkey cipherkey signingkey signkey authkey masterkey sessionkey sshkey rolekey anonkey
    licensekey licencekey jwtkey accountkey storagekey sharedkey hmackey rsakey pgpkey gpgkey aeskey clientkey deploykey
    webhookkey rootkey adminkey securitykey merchantkey consumerkey appkey applicationkey serverkey subscriptionkey
    instrumentationkey vapidkey stripekey openaikey anthropickey supabasekey sendgridkey twiliokey githubkey awskey
    googlekey datadogkey servicekey integrationkey symmetrickey
    sessionid sessid phpsessid jsessionid connectsid sessiontoken sessioncookie sessiondata sessionsecret
    authcode authorizationcode verificationcode otpcode securitycode accesscode resetcode smscode recoverycode
    backupcode devicecode mfacode factorcode onetimecode onetimepassword logincode confirmationcode activationcode
    codeverifier magiclink resetlink
    authheader authdata xauth basicauth httpauth proxyauth
    privatepem pkcs keystore pfx seedphrase recoveryphrase mnemonic kubeconfig netrc htpasswd
    connectionstring connstr databaseurl dburl mongouri mongodburi
    captcharesponse samlresponse samlassertion assertion secretanswer securityanswer securityquestion inputvalue
"""
_PERSONAL = """
    email phone telephone phonenumber mobilenumber mobilephone cellphone msisdn faxnumber whatsapp
    dob dateofbirth birthdate birthday birthdata placeofbirth
    firstname lastname fullname surname middlename maidenname givenname familyname realname legalname
    streetaddress homeaddress mailingaddress billingaddress shippingaddress postaladdress addressline streetname
    ssn socialsecurity nationalid nationalinsurance taxid taxnumber taxpayerid itin nino aadhaar
    passport passportid passportnumber passportno driverlicense driverslicense driverlicence driverslicence
    drivinglicense drivinglicence licensenumber licencenumber medicarenumber nhsnumber
    iban creditcard debitcard cardnumber cardno cardnum ccnumber ccnum cardpan cardcvv cvv cvc csc cardcode
    accountnumber accountno bankaccount routingnumber sortcode
    ipaddress ipaddr clientip remoteip userip peerip sourceip realip connectingip remoteaddr clientaddress
    forwardedfor
"""


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SENSITIVE = _set(_SECRETS + _PERSONAL)
# Too short or too common to count anywhere: only as the whole name or its last word.
_LAST = _set("pass pw pin auth session sess sid xsrftoken tan ip street")
_ALONE = _set("sid sess tan ip street")
_PAIRS_WITH_PIN = frozenset(("pincode", "pinnumber", "cardpin"))
_NOT_BEFORE_LAST = _set("boarding season test first render shader second third multi single by gpio dbapi")

# What a sensitive word is about, instead of what it is.
_VETO_AFTER = _set("""
    count counts counter total type types kind length len size limit limits min max minimum maximum expires expire
    expired expiry expiration at in ttl age policy policies strength valid invalid validity verified unverified
    verification confirmed status state enabled disabled required optional allowed present missing set provider
    providers method methods version algorithm alg algorithms algo id ids name names field fields label endpoint
    endpoints issuer iss audience aud consent banner preference preferences setting settings config changed updated
    created rotated rotation reset used usage budget rate ratio template templates domain domains path samesite secure
    httponly timeout duration lifetime start started end ended model models format prefix subject sent queue
    notification notifications host port server service backend sender delivery opt out error errors failed
    failures attempts retries url uri uris scope scopes unit units cost price index position
    per second seconds minute minutes hour ms bucket buckets class classes manager store schema source sources
    brand network country
""")
_VETO_FIRST = _set("""
    is has had needs need require requires required enable enabled disable allow allows no use uses using show hide
    max min num number count total n avg mean sum estimated prompt completion input output cached reasoning remaining
    used supports support should can with without
""")
_STEMS = (
    "password", "passwd", "passphrase", "secret", "token", "apikey", "secretkey", "privatekey", "accesskey",
    "sessionid", "credential", "email", "phonenumber", "cardnumber", "setcookie",
)  # fmt: skip
_HEADS = ("password", "passwd", "apikey", "accesstoken", "secretkey", "creditcard", "aspsessionid")
_BENIGN = _set("passwordless tokenless secretless nonsecret emailtemplate")


def words(name: str) -> tuple[str, ...]:
    """The lower-case words of a name in any spelling; digits and punctuation only separate."""
    if "%" in name:
        name = unquote(name[-MAX_NAME * 3 :])
    return tuple(_singular(found.lower()) for found in _WORD.findall(name[-MAX_NAME:]))


def is_sensitive(name: str) -> bool:
    """True if a value under this name must not be shown. Memoised for the default policy."""
    return DEFAULT.is_sensitive(name)


class KeyPolicy:
    """The default names, plus `fields` that are sensitive too, minus `allow_fields` that stay readable.

    Extra names match as a run of whole words (`note` covers `internalNote`); names that stay must match completely.
    """

    __slots__ = ("_allowed", "_extra", "_memo")

    def __init__(self, fields: Iterable[str] = (), allow_fields: Iterable[str] = ()) -> None:
        self._extra = tuple(run for run in map(words, fields) if run)
        self._allowed = frozenset("".join(words(name)) for name in allow_fields)
        self._memo: dict[str, bool] = {}

    def is_sensitive(self, name: str) -> bool:
        """True if a value under this name must not be shown."""
        verdict = self._memo.get(name)
        if verdict is None:
            verdict = self._judge(words(name))
            if len(self._memo) >= MEMO_ENTRIES:
                self._memo.clear()
            if len(name) <= MAX_NAME:
                self._memo[name] = verdict
        return verdict

    def stays(self, name: str) -> bool:
        """True if the operator named it among those that stay readable."""
        return bool(self._allowed) and "".join(words(name)) in self._allowed

    def _judge(self, parts: tuple[str, ...]) -> bool:
        if not parts or "".join(parts) in self._allowed:
            return False
        if any(_contains(parts, run) for run in self._extra):
            return True
        end = _last_match(parts)
        if not end or parts[0] in _VETO_FIRST:
            return False
        return _VETO_AFTER.isdisjoint(parts[end:])


def _contains(parts: tuple[str, ...], run: tuple[str, ...]) -> bool:
    width = len(run)
    return any(parts[i : i + width] == run for i in range(len(parts) - width + 1))


def _singular(word: str) -> str:
    if len(word) > 3 and word.endswith("s") and not word.endswith("ss"):
        return word if word in _VETO_AFTER else word[:-1]
    return word


def _last_match(parts: tuple[str, ...]) -> int:
    """One past the last word that belongs to a sensitive run; 0 if there is none."""
    for end in range(len(parts), 0, -1):
        for width in (1, 2, 3):
            if width <= end and _known("".join(parts[end - width : end]), width):
                return end
    return len(parts) if _ends_sensitively(parts) else 0


def _known(joined: str, width: int) -> bool:
    if joined in _SENSITIVE or joined in _PAIRS_WITH_PIN:
        return True
    if width > 1 or len(joined) < 8 or joined in _BENIGN:
        return False
    return joined.endswith(_STEMS) or joined.startswith(_HEADS)


def _ends_sensitively(parts: tuple[str, ...]) -> bool:
    last = parts[-1]
    if last not in _LAST:
        return False
    if last in _ALONE:
        return len(parts) == 1
    return len(parts) == 1 or parts[-2] not in _NOT_BEFORE_LAST


DEFAULT = KeyPolicy()
"""The policy without additions."""
