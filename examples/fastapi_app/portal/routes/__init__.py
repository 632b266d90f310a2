"""One file per area of the portal."""
