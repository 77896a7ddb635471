"""From nothing to a result, over the API: a user, a group, a project, a notebook, a kernel, a file that stays.

    SOPHON_USERNAME=admin SOPHON_PASSWORD=… python examples/first_notebook.py

Plain HTTP calls and one WebSocket, with nothing of Sophon's own; needs only `aiohttp`. Every run makes new names, and
leaves its notebook running, for you to look into.
"""

import asyncio
import json
import os
import secrets
from typing import Any
from urllib.parse import urlsplit

import aiohttp

BASE = os.environ.get("SOPHON_URL", "http://localhost:8000")
USERNAME = os.environ.get("SOPHON_USERNAME", "admin")
PASSWORD = os.environ.get("SOPHON_PASSWORD", "")

Headers = dict[str, str]


async def main() -> None:
    """Do it all, saying what is done."""
    suffix = secrets.token_hex(3)
    async with aiohttp.ClientSession(BASE, cookie_jar=aiohttp.DummyCookieJar()) as http:
        admin = await log_in(http, USERNAME, PASSWORD)
        username, password = f"ada-{suffix}", secrets.token_urlsafe(12)
        await call(http, "POST", "/api/users", admin, {"username": username, "password": password})
        ada = await token(http, await log_in(http, username, password))
        print(f"{username} has an account")

        group, project, notebook = (f"{kind}-{suffix}" for kind in ("space-lab", "apollo", "plots"))
        await call(http, "POST", "/api/groups", ada, {"slug": group, "title": "Space lab"})
        await call(http, "POST", "/api/projects", ada, {"slug": project, "group": group, "title": "Apollo"})
        await call(http, "POST", "/api/notebooks", ada, {"slug": notebook, "project": project, "title": "Plots"})
        print(f"{notebook} is made")

        url = await start(http, ada, notebook)
        print(f"6*7 is {await execute(http, ada, url, '6*7')}")
        await execute(http, ada, url, "open('result.txt', 'w').write('kept')")
        await call(http, "POST", f"/api/notebooks/{notebook}/stop", ada)
        await until(http, ada, notebook, "stopped")
        url = await start(http, ada, notebook)
        kept = await execute(http, ada, url, "open('result.txt').read()")
        print(f"after a stop and a start, the file says {kept}")
        print(f"Now open {BASE}/open/{notebook} in a browser, and sign in as {username} with the password {password}")


async def log_in(http: aiohttp.ClientSession, username: str, password: str) -> Headers:
    """Open a session; return the headers that are sent in it."""
    async with http.post("/api/session", json={"username": username, "password": password}) as answer:
        page = await checked(answer)
        (cookie,) = answer.cookies.values()
    return {"Cookie": f"{cookie.key}={cookie.value}", "X-CSRF-Token": page["csrf_token"]}


async def token(http: aiohttp.ClientSession, session: Headers) -> Headers:
    """Make a token; return the headers that it is sent in. A program needs no cookie from here on."""
    wish = {"title": "first notebook", "scopes": ["read", "write", "notebooks"], "days": 1}
    made = await call(http, "POST", "/api/tokens", session, wish)
    return {"Authorization": f"Bearer {made['secret']}"}


async def start(http: aiohttp.ClientSession, who: Headers, notebook: str) -> str:
    """Start a notebook and wait until it is ready; return its address."""
    await call(http, "POST", f"/api/notebooks/{notebook}/start", who)
    page = await until(http, who, notebook, "ready")
    print(f"{notebook} is ready at {page['url']}")
    return page["url"]


async def until(http: aiohttp.ClientSession, who: Headers, notebook: str, status: str) -> dict[str, Any]:
    """Follow a notebook's progress, which comes as server-sent events, until it has this status."""
    while True:
        async with http.get(f"/api/notebooks/{notebook}/progress", headers=who) as events:
            async for line in events.content:
                if line.startswith(b"data:"):
                    page = json.loads(line.removeprefix(b"data:"))
                    if page["status"] == status:
                        return page
                    if page["status"] == "failed":
                        raise SystemExit(f"it failed: {page['reason']}\n{page['log']}")


async def execute(http: aiohttp.ClientSession, who: Headers, url: str, code: str) -> str:
    """Run code in a fresh kernel of the notebook, over its WebSocket; return the value of the last line."""
    # Names under .localhost lead to this machine in a browser, but not in Python: the host goes in a header.
    there = {**who, "Host": urlsplit(url).netloc}
    kernel = await call(http, "POST", "/api/kernels", there, {"name": "python3"})
    async with http.ws_connect(f"/api/kernels/{kernel['id']}/channels", headers=there) as channel:
        header = {"msg_id": secrets.token_hex(8), "msg_type": "execute_request", "username": "", "session": "example"}
        content = {"code": code, "silent": False, "store_history": True, "allow_stdin": False}
        request = {"channel": "shell", "header": header, "parent_header": {}, "metadata": {}, "content": content}
        await channel.send_json(request)
        result = ""
        async for frame in channel:
            message = json.loads(frame.data)
            if message["parent_header"].get("msg_id") != header["msg_id"]:
                continue
            match message["msg_type"]:
                case "execute_result":
                    result = message["content"]["data"]["text/plain"]
                case "error":
                    raise SystemExit(f"{message['content']['ename']}: {message['content']['evalue']}")
                case "status" if message["content"]["execution_state"] == "idle":
                    break  # the reply is no sign of the end: it comes by another channel than the result
                case _:
                    pass
    await call(http, "DELETE", f"/api/kernels/{kernel['id']}", there)
    return result


async def call(http: aiohttp.ClientSession, method: str, path: str, who: Headers, body: Any = None) -> Any:
    """Make one call; end with the problem's own words where it is refused."""
    async with http.request(method, path, headers=who, json=body) as answer:
        return await checked(answer)


async def checked(answer: aiohttp.ClientResponse) -> Any:
    """Give an answer's JSON, if it has one."""
    text = await answer.text()
    if not answer.ok:
        raise SystemExit(f"{answer.method} {answer.url.path} was refused: {text}")
    return json.loads(text) if text else None


if __name__ == "__main__":
    if not PASSWORD:
        raise SystemExit("Set SOPHON_PASSWORD to the password that the first start printed.")
    try:
        asyncio.run(main())
    except aiohttp.ClientConnectorError:
        raise SystemExit(f"Nothing answers at {BASE}: start Sophon, or set SOPHON_URL to its address.") from None
