"""The ASGI door: one wrapper around the application (ASGI 3.0; HTTP & WebSocket message format 2.5)."""

from portalshield.asgi.door import AsgiDoor, InnerDoor, ShieldMiddleware

__all__ = ["AsgiDoor", "InnerDoor", "ShieldMiddleware"]
