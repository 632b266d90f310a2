"""Credentials that say of themselves whose they are: vendor prefixes, JWTs, PEM keys.

Every pattern begins with literal text, stands behind a boundary and repeats one character class possessively, so a
scan is one pass whatever the text. `(prefix, rest)` rows are grouped by first letter when compiled: one boundary then
costs as many comparisons as there are letters, not as many as there are vendors. Rows with their mark in the middle
begin with a class; they stand last.
"""

from __future__ import annotations

import re
from itertools import groupby

_AN = "[A-Za-z0-9]"
_B64URL = "[A-Za-z0-9_-]"
_PADDED = "[A-Za-z0-9_=-]"
_HEX = "[A-Fa-f0-9]"
_HEX_H = "[A-Ha-h0-9]"
_UUID = rf"{_HEX}{{8}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{12}}"
_END = "(?![A-Za-z0-9_-])"


def _mixed(marks: str, count: int) -> str:
    """So many characters, a digit, a capital and a small letter among them: names and words behind a short prefix are
    hardly ever that."""
    ahead = f"{{0,{count - 1}}}"
    return (
        f"(?=[A-Za-z{marks}]{ahead}[0-9])(?=[a-z0-9{marks}]{ahead}[A-Z])(?=[A-Z0-9{marks}]{ahead}[a-z])"
        f"[A-Za-z0-9{marks}]{{{count}}}"
    )


_VENDORS: tuple[str, ...] = (
    rf"sk_(?:live|test|prod)_{_AN}{{10,250}}+",  # Stripe, Clerk, Paystack
    rf"rk_(?:live|test|prod)_{_AN}{{10,250}}+",
    r"whsec_[A-Za-z0-9+/=_-]{16,120}+",  # Stripe and Standard Webhooks
    rf"sk_{_HEX}{{48,64}}+",  # ElevenLabs
    rf"sk-(?=[A-Za-z_-]{{0,60}}[0-9]){_B64URL}{{20,250}}+",  # OpenAI, Anthropic, OpenRouter, Langfuse, DeepSeek
    rf"sbp_{_HEX}{{40}}",  # Supabase
    rf"sb_secret_{_B64URL}{{16,80}}+",
    r"A(?:KIA|SIA|BIA|CCA|3T[A-Z0-9])[A-Z0-9]{16}(?![A-Za-z0-9])",  # AWS
    rf"gh[pousr]_{_AN}{{30,255}}+",  # GitHub
    r"github_pat_[A-Za-z0-9_]{22,255}+",
    rf"gl(?:pat|dt|rt|rtr|cbt|ptt|ft|imt|agent|oas|soat|ffct)-{_B64URL}{{20,320}}+(?:\.[a-z0-9]{{2}}\.?[a-z0-9]{{7}})?",
    rf"GR1348941{_B64URL}{{20,40}}+",  # GitLab
    rf"AIza{_B64URL}{{30,60}}+",  # Google
    rf"ya29\.{_B64URL}{{20,512}}+",
    rf"GOCSPX-{_B64URL}{{20,60}}+",
    rf"1//0{_B64URL}{{30,200}}+",
    r"xox[abceoprs](?:\.xox[bp])?-[A-Za-z0-9-]{9,255}+",  # Slack
    r"xoxd-[A-Za-z0-9%+/=_-]{40,512}+",
    r"xapp-[0-9]-[A-Za-z0-9-]{10,255}+",
    r"hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9+/]{20,120}+",
    rf"SK{_HEX}{{32}}(?![A-Za-z0-9])",  # Twilio
    rf"SG\.{_B64URL}{{16,32}}+\.{_B64URL}{{16,64}}+",  # SendGrid
    rf"npm_{_AN}{{30,64}}+",
    rf"pypi-{_B64URL}{{16,1024}}+",
    rf"rubygems_{_HEX}{{40,64}}+",
    rf"cio{_AN}{{32}}(?![A-Za-z0-9])",  # crates.io
    rf"CLOJARS_{_AN}{{50,70}}+",
    rf"hf_{_AN}{{30,64}}+",  # Hugging Face
    rf"api_org_{_AN}{{30,64}}+",
    r"shp(?:at|ca|pa|ss)_[A-Fa-f0-9]{32,64}+",  # Shopify
    rf"do[opr]_v1_{_HEX}{{64}}",  # DigitalOcean
    r"gl(?:c|sa)_[A-Za-z0-9+/=_]{32,512}+",  # Grafana
    rf"lin_(?:api|oauth)_{_AN}{{32,64}}+",  # Linear
    rf"secret_{_AN}{{43}}(?![A-Za-z0-9])",  # Notion
    rf"ntn_{_AN}{{40,60}}+",
    rf"fig[dou]_{_B64URL}{{30,80}}+",  # Figma
    rf"key-{_HEX}{{32}}(?![A-Za-z0-9])",  # Mailgun
    rf"pubkey-{_HEX}{{32}}(?![A-Za-z0-9])",
    r"ops_eyJ[A-Za-z0-9+/=_-]{40,4096}+",  # 1Password
    r"A3-[A-Z0-9]{6}(?:-[A-Z0-9]{5,11}+){4,5}+(?![A-Za-z0-9])",
    rf"hv[sbr]\.{_B64URL}{{24,512}}+",  # Vault
    rf"s\.{_mixed('', 24)}(?![A-Za-z0-9_(-])",
    r"sntry[us]_[A-Za-z0-9+/=_-]{30,600}+",  # Sentry
    rf"dckr_(?:pat|oat)_{_B64URL}{{20,64}}+",  # Docker
    rf"gsk_{_AN}{{40,80}}+",  # Groq
    rf"xai-{_AN}{{40,120}}+",  # xAI
    rf"pplx-{_AN}{{40,80}}+",  # Perplexity
    rf"r8_{_AN}{{30,60}}+",  # Replicate
    rf"sq0(?:atp|csp|idp)-{_B64URL}{{22,64}}+",  # Square
    rf"EAAA(?<![+/]EAAA)(?!A){_B64URL}{{22,255}}+",  # binary data in base64 has zeros there
    r"EAA[A-Za-z0-9_-]{60,512}+",  # Square, Facebook
    rf"vc[apikr]_{_AN}{{24,80}}+",  # Vercel
    rf"nfp_{_AN}{{36,60}}+",  # Netlify
    rf"ATATT3{_PADDED}{{50,255}}+",  # Atlassian
    rf"ATCTT3{_PADDED}{{50,255}}+",
    rf"dapi{_HEX}{{32}}(?:-[0-9])?",  # Databricks
    rf"PMAK-{_HEX}{{24}}-{_HEX}{{34}}",  # Postman
    r"pscale_(?:tkn|pw|oauth)_[A-Za-z0-9_=.-]{32,80}+",  # PlanetScale
    r"dp\.(?:pt|st|ct|sa|scim|audit)\.[A-Za-z0-9._-]{32,80}+",  # Doppler
    rf"pul-{_HEX}{{40}}",  # Pulumi
    rf"NR(?:AK|II|IQ|JS|RA)-{_B64URL}{{19,42}}+",  # New Relic
    r"AGE-SECRET-KEY-1[A-Z0-9]{50,64}+",
    rf"pat{_AN}{{14}}\.{_HEX}{{64}}",  # Airtable
    rf"pat-(?:na|eu)1-{_UUID}",  # HubSpot
    rf"pat\.{_B64URL}{{22}}\.{_AN}{{24}}\.{_AN}{{20}}{_END}",  # Harness
    rf"sat\.{_B64URL}{{22}}\.{_AN}{{24}}\.{_AN}{{20}}{_END}",
    rf"sl\.(?:u\.)?{_PADDED}{{100,2048}}+",  # Dropbox
    rf"xkeysib-{_HEX}{{64}}-{_AN}{{16}}",  # Brevo
    rf"re_{_AN}{{8}}_{_AN}{{20,40}}+",  # Resend
    rf"napi_{_AN}{{40,80}}+",  # Neon
    r"lsv2_(?:pt|sk)_[a-f0-9_]{32,80}+",  # LangSmith
    rf"phx_{_AN}{{30,60}}+",  # PostHog
    rf"access-(?:sandbox|development|production)-{_UUID}",  # Plaid
    rf"CFPAT-{_B64URL}{{40,60}}+",  # Contentful
    rf"bkua_{_HEX}{{40}}",  # Buildkite
    r"CCIPAT_[A-Za-z0-9_]{40,80}+",  # CircleCI
    r"sgp_[A-Za-z0-9_]{40,80}+",  # Sourcegraph
    rf"tskey-[a-z]{{3,10}}-{_AN}{{10,20}}-{_AN}{{20,60}}+",  # Tailscale
    r"pcsk_[A-Za-z0-9_]{40,100}+",  # Pinecone
    rf"nvapi-{_B64URL}{{40,100}}+",  # NVIDIA
    rf"tvly-(?:dev-|prod-)?{_AN}{{20,60}}+",  # Tavily
    rf"p8e-{_AN}{{30,40}}+",  # Adobe
    rf"LTAI{_AN}{{12,30}}+",  # Alibaba Cloud
    rf"AKCp{_AN}{{60,80}}+",  # Artifactory
    r"cmVmd[A-Za-z0-9]{59}(?![A-Za-z0-9+/=_-])",
    *(
        rf"{kind}_{_AN}{{5,30}}+\.{_AN}{{4,6}}+\.acc[_-][A-Za-z0-9-]{{10,32}}+\.[A-Za-z0-9+/_=-]{{30,120}}+"
        for kind in ("authress", "ext", "sc", "scauth")  # Authress
    ),
    r"4b1d[A-Za-z0-9]{38}(?![A-Za-z0-9])",  # ClickHouse
    rf"v1\.0-{_HEX}{{24}}-{_HEX}{{140,160}}+",  # Cloudflare's origin authority
    rf"dnkey-{_PADDED}{{70,90}}+",  # Defined Networking
    rf"duffel_(?:live|test)_{_PADDED}{{40,50}}+",
    rf"dt0[a-z][0-9]{{2}}\.{_AN}{{20,30}}+\.{_AN}{{60,70}}+",  # Dynatrace
    rf"EZ[AT]K{_AN}{{50,60}}+",  # EasyPost
    rf"FLW(?:PUBK|SECK)(?:_TEST)?-{_AN}{{12,40}}+(?:-X)?",  # Flutterwave
    rf"fo1_{_B64URL}{{40,50}}+",  # Fly.io
    r"fm(?:1[ar]|2)_[A-Za-z0-9+/=_-]{100,4096}+",
    rf"fio-u-{_PADDED}{{60,72}}+",  # Frame.io
    rf"live_{_mixed('_=-', 40)}(?![A-Za-z0-9_=-])",  # GoCardless
    rf"live_(?:pub_{_HEX}{{31}}|{_HEX}{{35}}){_END}",  # Lob
    rf"test_(?:pub_{_HEX}{{31}}|{_HEX}{{35}}){_END}",
    rf"HRKU-{_B64URL}{{36,70}}+",  # Heroku
    rf"ico-(?![a-f0-9]{{32}}){_AN}{{32}}{_END}",  # Infracost; a file named by its hash is none
    rf"s-s4t2(?:af|ud)-{_HEX}{{64}}",  # 42
    r"ZXlK[A-Za-z0-9+/_-]{44,4096}+={0,2}",  # a JWT in base64
    rf"pk\.{_AN}{{50,120}}+\.{_AN}{{20,26}}+",  # Mapbox
    rf"sk\.{_AN}{{50,120}}+\.{_AN}{{20,26}}+",
    r"webhook\.office\.com/webhookb2/[A-Za-z0-9@/-]{60,250}+",  # Teams
    r"API-(?!0[0-7])[A-Z0-9]{26}(?![A-Za-z0-9])",  # Octopus Deploy; with these digits a ULID of our time begins
    rf"sha256~{_B64URL}{{43}}{_END}",  # OpenShift
    rf"pn[bu]_{_AN}{{32,40}}+",  # Prefect
    rf"rdme_{_AN}{{60,80}}+",  # ReadMe
    rf"tk-us-{_mixed('_-', 48)}{_END}",  # Scalingo
    rf"sm_(?:aat|pat|sat)_{_AN}{{16,32}}+",  # SettleMint
    rf"shippo_(?:live|test)_{_HEX}{{40}}",
    rf"BUNDLE_(?:ENTERPRISE|GEMS)__CONTRIBSYS__COM[^A-Za-z0-9]{{1,6}}+{_HEX}{{8}}:{_HEX}{{8}}",  # Sidekiq
    rf"tfp_{_mixed('_=.-', 59)}(?![A-Za-z0-9_=-])",  # Typeform
    r"AA{20}A{0,4}+(?!A)[A-Za-z0-9%+/=]{60,110}+",  # Twitter; nothing but zeros is no token
    rf"t1\.{_B64URL}{{1,2048}}+={{0,2}}\.{_B64URL}{{86}}={{0,2}}",  # Yandex Cloud
    rf"AQVN{_B64URL}{{35,38}}+",
    rf"YC{_mixed('_-', 38)}{_END}",
    rf"[MNO]{_B64URL}{{23,27}}+\.{_B64URL}{{6}}\.{_B64URL}{{27,45}}+",  # Discord
    r"[0-9]{8,10}+:[A-Za-z0-9_-]{35}(?![A-Za-z0-9_-])",  # Telegram
    rf"[0-9]{{5,16}}+(?::A{_B64URL}{{34}}|\|{_B64URL}{{27}}){_END}",  # Telegram, Facebook
    rf"{_HEX_H}{{32}}-(?:us[0-9]{{1,2}}(?![A-Za-z0-9])|{_HEX_H}{{8}}-{_HEX_H}{{8}}{_END})",  # Mailchimp, Mailgun
    rf"discord(?:app)?\.com/api/webhooks/[0-9]{{15,22}}+/{_B64URL}{{40,120}}+",
    rf"{_AN}{{6}}_{_AN}{{29}}_mmk{_END}",  # MaxMind
    rf"{_AN}{{14}}\.atlasv1\.{_PADDED}{{60,70}}+",  # Terraform
    rf"{_AN}{{11}}AAAAAAAAAA{_PADDED}{{43}}(?![A-Za-z0-9_=-])",  # Dropbox
    r"[A-Za-z0-9_.~]{1,3}[0-9]Q~[A-Za-z0-9_.~-]{31,40}+",  # Microsoft Entra
)


def _grouped(rows: tuple[str, ...]) -> str:
    """One alternation whose branches differ in their first character, where rows begin with a letter."""
    plain = sorted((row for row in rows if row[0].isalnum() and row[1] not in "*+?{|"), key=lambda row: row[0])
    other = [row for row in rows if row not in plain]
    branches = [
        f"{letter}(?:{'|'.join(row[1:] for row in group)})" for letter, group in groupby(plain, key=lambda row: row[0])
    ]
    return "|".join(branches + other)


# No row is shorter than 14 characters: one count of one class turns away most words, whatever the number of rows.
TOKEN = re.compile(rf"(?<![A-Za-z0-9])(?=[A-Za-z0-9][A-Za-z0-9_+/=.~:%-]{{13}})(?:{_grouped(_VENDORS)})")
"""A credential of a known vendor."""
JWT = re.compile(
    r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{6,4096}+(?:\.[A-Za-z0-9_-]{0,4096}+){0,4}+",
)
"""A JWS or JWE in compact form, whole or cut off."""
PEM = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,40}(?:PRIVATE KEY|PGP PRIVATE KEY BLOCK)[A-Z ]{0,8}-----"
    r"(?:[A-Za-z0-9+/=\s:,.\\]|-(?!----))*+(?:-----END [A-Z0-9 ]{1,60}+-----)?"
)
"""A private key, also with escaped line ends, also when its end is missing."""
