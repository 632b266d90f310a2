"""The start page and the health probe."""

from flask import Blueprint

from ..payloads import Json

bp = Blueprint("pages", __name__)

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Client portal</title>
<style>body { font: 16px/1.5 system-ui; max-width: 30rem; margin: 4rem auto }
input { display: block; margin: .5rem 0 }</style>
<h1>Client portal</h1>
<form id="login">
  <label>Email <input name="email" type="email" autocomplete="username" required></label>
  <label>Password <input name="password" type="password" autocomplete="current-password" required></label>
  <button>Log in</button>
</form>
<pre id="numbers"></pre>
<script>
const numbers = document.getElementById("numbers");
document.getElementById("login").addEventListener("submit", async event => {
  event.preventDefault();
  const login = await fetch("/auth/login", {
    method: "POST", headers: {"Content-Type": "application/json"},
    body: JSON.stringify(Object.fromEntries(new FormData(event.target))),
  });
  if (!login.ok) { numbers.textContent = "Wrong email or password"; return; }
  const headers = {Authorization: `Bearer ${(await login.json()).access_token}`};
  const me = await (await fetch("/auth/me", {headers})).json();
  const found = await fetch(`/dashboard?tenant_id=${encodeURIComponent(me.tenant_id)}`, {headers});
  numbers.textContent = JSON.stringify(await found.json(), null, 2);
});
</script>
</html>
"""


@bp.get("/")
def start_page() -> str:
    return PAGE


@bp.get("/healthz")
def healthz() -> Json:
    return {"status": "ok"}
