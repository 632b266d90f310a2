"""What a real browser is pointed at: the contract's portal on FastAPI behind the shield, and routes that show what a
page may do.

Settings come from the environment, as in `portal_app`.
"""

from __future__ import annotations

from typing import Any

from fastapi import Request, Response
from fastapi.responses import HTMLResponse
from portals import fastapi_portal

from portalshield import Shield, public

app, _ = fastapi_portal()
_writes: list[str] = []

# A page of the portal itself: inline script, script file, worker, form post with the cookie; it reports what worked.
_OWN_PAGE = """<!doctype html><title>own</title><script>const ran = ["inline"];</script><script src="/own.js"></script>
<script>
(async () => {
  const made = await fetch("/write", {method: "POST", body: new URLSearchParams({who: "own"})});
  ran.push("post " + made.status);
  const worker = new Worker("/worker.js");
  const tell = async (what) => report("own", {ran: [...ran, what], writes: await (await fetch("/writes")).json()});
  worker.onmessage = (event) => tell("worker " + event.data);
  worker.onerror = () => tell("worker stopped");
})();
</script>"""
_WORKER = 'fetch("/public").then((r) => postMessage(r.status)).catch((e) => postMessage(e.name));'


@app.get("/own", response_class=HTMLResponse)
@public
async def own_page(reports: str) -> str:
    """A page under the default policy for pages; `reports` is where the collector's script is."""
    return _OWN_PAGE.replace("<script>", f'<script src="{reports}"></script><script>', 1)


@app.get("/own.js")
@public
async def own_script() -> Response:
    """A script of the page."""
    return Response('ran.push("file");', media_type="text/javascript")


@app.get("/worker.js")
@public
async def worker() -> Response:
    """A worker, which lives under the policy of its own answer."""
    return Response(_WORKER, media_type="text/javascript")


@app.get("/cookie")
@public
async def cookie() -> Response:
    """Logs in: a cookie that other sites' requests carry, and three fields, one of them exposed by setting."""
    answer = Response("{}", media_type="application/json", headers={"x-total": "3", "x-hidden": "secret"})
    answer.set_cookie("session", "1", secure=True, samesite="none", httponly=True)
    return answer


@app.get("/cookies")
@public
async def cookies(request: Request) -> dict[str, Any]:
    """Which cookies came."""
    return dict(request.cookies)


@app.post("/write")
@public
async def write(request: Request) -> dict[str, bool]:
    """Changes something; who rode on the cookie is remembered."""
    _writes.append((await request.body()).decode() + (" with cookie" if request.cookies else ""))
    return {"written": True}


@app.get("/writes")
@public
async def writes() -> list[str]:
    """What was changed, by whom."""
    return _writes


Shield(app)
