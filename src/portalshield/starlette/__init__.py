"""Starlette and FastAPI: install the doors, list the routes, confirm the route that really ran.

The table decides with the framework's own patterns and precedence, and routers are led the way that it found. Then the
route confirms: the endpoint that really matched and its parameters must be those the policy was applied to, or the
answer is replaced by a refusal.
"""

from portalshield.starlette.install import install, installed
from portalshield.starlette.table import StarletteTable, tabulate

__all__ = ["StarletteTable", "install", "installed", "tabulate"]
