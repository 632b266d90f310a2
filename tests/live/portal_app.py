"""What the live servers serve: the contract's portal behind the shield.

Settings come from the environment. `LIVE_KIND` is asgi or wsgi. `LIVE_SIGNAL` names a file that a streaming handler
waits for, so that a client can prove that it had the first block before the last one existed. `LIVE_POLICY` adds a
policy, for wrong ones.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import flask
from fastapi import Request, UploadFile
from fastapi.responses import StreamingResponse
from portals import fastapi_portal, flask_portal

from portalshield import Policy, Shield, Upload, protect, public
from portalshield.rules.magic import KINDS

PATIENCE_S = 10.0
POLL_S = 0.005
FILES = Upload(KINDS, max_file="20MB", max_files=2)


def _portal(kind: str) -> Any:
    portal, _ = fastapi_portal() if kind == "asgi" else flask_portal()
    (_add_asgi if kind == "asgi" else _add_wsgi)(portal)
    policy = os.environ.get("LIVE_POLICY")
    Shield(portal, policies=[Policy(policy, public=True)] if policy else [])
    return portal


def _signalled() -> bool:
    return Path(os.environ["LIVE_SIGNAL"]).exists()


def _add_asgi(app: Any) -> None:
    @app.get("/waiting")
    @public
    async def waiting() -> StreamingResponse:
        async def blocks() -> AsyncIterator[bytes]:
            yield b"first"
            deadline = time.monotonic() + PATIENCE_S
            while not _signalled() and time.monotonic() < deadline:  # noqa: ASYNC110 (another process makes the file)
                await asyncio.sleep(POLL_S)
            yield b"last" if _signalled() else b"given up"

        return StreamingResponse(blocks(), media_type="text/plain")

    @app.get("/half")
    @public
    async def half() -> StreamingResponse:
        async def blocks() -> AsyncIterator[bytes]:
            yield b"half"
            raise RuntimeError("secret-in-exception")

        return StreamingResponse(blocks(), media_type="text/plain")

    @app.post("/files")
    @protect(upload=FILES)
    async def files(file: UploadFile) -> list[str]:
        return [str(file.filename), hashlib.sha256(await file.read()).hexdigest()]

    @app.api_route("/seen", methods=["GET", "POST"])
    @public
    async def seen(request: Request) -> dict[str, Any]:
        fields = {name: request.headers.getlist(name) for name in ("host", "authorization", "x-tenant-id")}
        return {"path": request.url.path, "body": (await request.body()).decode("latin-1"), **fields}


def _add_wsgi(app: Any) -> None:
    @app.get("/waiting")
    @public
    def waiting() -> flask.Response:
        def blocks() -> Iterator[bytes]:
            yield b"first"
            deadline = time.monotonic() + PATIENCE_S
            while not _signalled() and time.monotonic() < deadline:
                time.sleep(POLL_S)
            yield b"last" if _signalled() else b"given up"

        return flask.Response(blocks(), mimetype="text/plain")

    @app.get("/half")
    @public
    def half() -> flask.Response:
        def blocks() -> Iterator[bytes]:
            yield b"half"
            raise RuntimeError("secret-in-exception")

        return flask.Response(blocks(), mimetype="text/plain")

    @app.post("/files")
    @protect(upload=FILES)
    def files() -> list[str]:
        file = flask.request.files["file"]
        return [str(file.filename), hashlib.sha256(file.read()).hexdigest()]

    @app.route("/seen", methods=["GET", "POST"])
    @public
    def seen() -> dict[str, Any]:
        request = flask.request
        fields = {name: request.headers.getlist(name) for name in ("host", "authorization", "x-tenant-id")}
        return {"path": request.path, "body": request.get_data().decode("latin-1"), **fields}


app = _portal(os.environ["LIVE_KIND"])
