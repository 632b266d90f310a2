"""The WSGI door: one wrapper around the application (PEP 3333)."""

from portalshield.wsgi.door import ShieldMiddleware, WsgiDoor

__all__ = ["ShieldMiddleware", "WsgiDoor"]
