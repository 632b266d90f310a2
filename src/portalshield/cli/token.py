"""`portalshield token`: a development token."""

from __future__ import annotations

import json

import click

from portalshield.cli.application import json_option, or_broken
from portalshield.settings import Settings
from portalshield.testing.tokens import mint_token


@click.command()
@click.option("--tenant", default=None, help="The tenant the token proves.")
@click.option("--subject", default="u1", show_default=True, help="Whom it proves.")
@click.option("--role", "roles", multiple=True, help="A role; may be repeated.")
@click.option("--scope", "scopes", multiple=True, help="A scope; may be repeated.")
@click.option("--ttl", "ttl_s", default=3600, show_default=True, help="Seconds until it expires.")
@json_option
def token(
    tenant: str | None, subject: str, roles: tuple[str, ...], scopes: tuple[str, ...], ttl_s: int, as_json: bool
) -> None:
    """Mint a token with the configured secret. Refused in production."""
    settings: Settings = or_broken(as_json, Settings.from_env)
    if settings.env == "production":
        raise click.UsageError("PORTALSHIELD_ENV is production: tokens come from your provider there")
    if settings.auth.secret is None:
        raise click.UsageError("a token needs PORTALSHIELD_AUTH=jwt with PORTALSHIELD_AUTH__SECRET")
    text = mint_token(settings, tenant=tenant, subject=subject, roles=roles, scopes=scopes, ttl_s=ttl_s)
    click.echo(json.dumps({"token": text}) if as_json else text)
