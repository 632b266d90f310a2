"""`python -m portalshield`."""

from portalshield.cli import main

main(prog_name="portalshield")
