"""portalshield."""
