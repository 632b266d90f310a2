"""Credentials that say of themselves whose they are: vendor prefixes, JWTs, PEM keys.

Every pattern begins with literal text, stands behind a boundary and repeats one character class possessively, so a
scan is one pass whatever the text. `(prefix, rest)` rows are grouped by first letter when compiled: one boundary then
costs as many comparisons as there are letters, not as many as there are vendors.
"""

from __future__ import annotations

import re
from itertools import groupby

_AN = "[A-Za-z0-9]"
_B64URL = "[A-Za-z0-9_-]"
_HEX = "[a-f0-9]"
_UUID = r"[a-f0-9]{8}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{12}"

_VENDORS: tuple[str, ...] = (
    rf"sk_(?:live|test)_{_AN}{{10,250}}+",  # Stripe, Clerk, Paystack
    rf"rk_(?:live|test)_{_AN}{{10,250}}+",
    r"whsec_[A-Za-z0-9+/=_-]{16,120}+",  # Stripe and Standard Webhooks
    rf"sk_{_HEX}{{48,64}}+",  # ElevenLabs
    rf"sk-(?=[A-Za-z_-]{{0,60}}[0-9]){_B64URL}{{20,250}}+",  # OpenAI, Anthropic, OpenRouter, Langfuse, DeepSeek
    rf"sbp_{_HEX}{{40}}",  # Supabase
    rf"sb_secret_{_B64URL}{{16,80}}+",
    r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}(?![A-Za-z0-9])",  # AWS
    rf"gh[pousr]_{_AN}{{30,255}}+",  # GitHub
    r"github_pat_[A-Za-z0-9_]{22,255}+",
    rf"gl(?:pat|dt|rt|rtr|cbt|ptt|ft|imt|agent|oas|soat|ffct)-{_B64URL}{{20,100}}+",  # GitLab
    rf"AIza{_B64URL}{{30,60}}+",  # Google
    rf"ya29\.{_B64URL}{{20,512}}+",
    rf"GOCSPX-{_B64URL}{{20,60}}+",
    rf"1//0{_B64URL}{{30,200}}+",
    r"xox[abeoprs](?:\.xox[bp])?-[A-Za-z0-9-]{10,255}+",  # Slack
    r"xapp-[0-9]-[A-Za-z0-9-]{10,255}+",
    r"hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9+/]{20,120}+",
    rf"SK{_HEX}{{32}}(?![A-Za-z0-9])",  # Twilio
    rf"SG\.{_B64URL}{{16,32}}+\.{_B64URL}{{16,64}}+",  # SendGrid
    rf"npm_{_AN}{{30,64}}+",
    rf"pypi-{_B64URL}{{16,255}}+",
    rf"rubygems_{_HEX}{{40,64}}+",
    rf"cio{_AN}{{32}}(?![A-Za-z0-9])",  # crates.io
    rf"hf_{_AN}{{30,64}}+",  # Hugging Face
    r"shp(?:at|ca|pa|ss)_[A-Fa-f0-9]{32,64}+",  # Shopify
    rf"do[opr]_v1_{_HEX}{{64}}",  # DigitalOcean
    r"gl(?:c|sa)_[A-Za-z0-9+/=_]{32,255}+",  # Grafana
    rf"lin_(?:api|oauth)_{_AN}{{32,64}}+",  # Linear
    rf"secret_{_AN}{{43}}(?![A-Za-z0-9])",  # Notion
    rf"ntn_{_AN}{{40,60}}+",
    rf"fig[dou]_{_B64URL}{{30,80}}+",  # Figma
    rf"key-{_HEX}{{32}}(?![A-Za-z0-9])",  # Mailgun
    rf"ops_eyJ{_B64URL}{{40,4096}}+",  # 1Password
    rf"hv[sbr]\.{_B64URL}{{24,255}}+",  # Vault
    r"sntry[us]_[A-Za-z0-9+/=_-]{30,255}+",  # Sentry
    rf"dckr_(?:pat|oat)_{_B64URL}{{20,64}}+",  # Docker
    rf"gsk_{_AN}{{40,80}}+",  # Groq
    rf"xai-{_AN}{{40,120}}+",  # xAI
    rf"pplx-{_AN}{{40,80}}+",  # Perplexity
    rf"r8_{_AN}{{30,60}}+",  # Replicate
    rf"sq0(?:atp|csp|idp)-{_B64URL}{{22,64}}+",  # Square
    r"EAA[A-Za-z0-9_-]{60,255}+",  # Square, Facebook
    rf"vc[apikr]_{_AN}{{24,80}}+",  # Vercel
    rf"nfp_{_AN}{{36,60}}+",  # Netlify
    rf"ATATT3{_B64URL}{{50,255}}+",  # Atlassian
    rf"ATCTT3{_B64URL}{{50,255}}+",
    rf"dapi{_HEX}{{32}}",  # Databricks
    rf"PMAK-{_HEX}{{24}}-{_HEX}{{34}}",  # Postman
    r"pscale_(?:tkn|pw|oauth)_[A-Za-z0-9_.-]{32,80}+",  # PlanetScale
    r"dp\.(?:pt|st|ct|sa|scim|audit)\.[A-Za-z0-9._-]{32,80}+",  # Doppler
    rf"pul-{_HEX}{{40}}",  # Pulumi
    r"NRAK-[A-Z0-9]{27}",  # New Relic
    r"AGE-SECRET-KEY-1[A-Z0-9]{50,64}+",
    rf"pat{_AN}{{14}}\.{_HEX}{{64}}",  # Airtable
    rf"pat-(?:na|eu)1-{_UUID}",  # HubSpot
    rf"sl\.{_B64URL}{{100,255}}+",  # Dropbox
    r"xkeysib-[a-f0-9]{64}-[A-Za-z0-9]{16}",  # Brevo
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
    rf"[MNO]{_B64URL}{{23,27}}+\.{_B64URL}{{6}}\.{_B64URL}{{27,45}}+",  # Discord
    r"[0-9]{8,10}+:[A-Za-z0-9_-]{35}(?![A-Za-z0-9_-])",  # Telegram
    rf"{_HEX}{{32}}-us[0-9]{{1,2}}(?![A-Za-z0-9])",  # Mailchimp
    rf"discord(?:app)?\.com/api/webhooks/[0-9]{{15,22}}+/{_B64URL}{{40,120}}+",
)


def _grouped(rows: tuple[str, ...]) -> str:
    """One alternation whose branches differ in their first character, where rows begin with a letter."""
    plain = sorted((row for row in rows if row[0].isalnum() and row[1] not in "*+?{|"), key=lambda row: row[0])
    other = [row for row in rows if row not in plain]
    branches = [
        f"{letter}(?:{'|'.join(row[1:] for row in group)})" for letter, group in groupby(plain, key=lambda row: row[0])
    ]
    return "|".join(branches + other)


TOKEN = re.compile(rf"(?<![A-Za-z0-9])(?:{_grouped(_VENDORS)})")
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
