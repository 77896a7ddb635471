"""A kernel that is spoken to as JupyterLab does, over its WebSocket."""

import secrets
from typing import Any

from tests.installation import Visitor


async def start_kernel(who: Visitor, notebook: str) -> str:
    """Start one; return its id."""
    return (await who.ask("POST", "/api/kernels", {"name": "python3"}, at=notebook)).expect(201).page["id"]


async def execute(who: Visitor, notebook: str, kernel: str, code: str) -> str:
    """Run code in it; return the value of the last line."""
    header = {"msg_id": secrets.token_hex(8), "msg_type": "execute_request", "username": "", "session": "test"}
    content = {"code": code, "silent": False, "store_history": True, "allow_stdin": False}
    request = {"channel": "shell", "header": header, "parent_header": {}, "metadata": {}, "content": content}
    result = ""
    async with who.socket(f"/api/kernels/{kernel}/channels", at=notebook) as channel:
        await channel.send_json(request)
        async for frame in channel:
            message: dict[str, Any] = frame.json()
            if message["parent_header"].get("msg_id") != header["msg_id"]:
                continue
            assert message["msg_type"] != "error", message["content"]
            if message["msg_type"] == "execute_result":
                result = message["content"]["data"]["text/plain"]
            # The reply is no sign of the end: it comes by another channel than the result.
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                return result
    raise AssertionError(f"the kernel went away; it had said {result!r}")
