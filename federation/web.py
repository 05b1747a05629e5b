"""The process that serves HTTP for a fleet: the front for devices under TLS, the operator's console on loopback.

``python -m federation.web FOLDER PARENT``; ends with its parent or on SIGTERM.
"""

import asyncio
import sys
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from federation.charter import Charter
from federation.console import Console
from federation.front import Front
from federation.leash import die_with_parent
from federation.plan import ServerFolder
from federation.processes import healthy

CONNECTIONS = 2000  # at once; more are told 503
HEADER_BYTES = 16 << 10


def main() -> None:
    """Serve until told to stop."""
    folder = ServerFolder(Path(sys.argv[1]))
    die_with_parent(int(sys.argv[2]))
    charter = Charter.read(folder.charter)
    front = Front(folder, charter)
    console = Console(folder, charter, front.answers, healthy(charter.superlink, folder.authority))
    asyncio.run(_serve(folder, charter, front.app(), console.app()))


async def _serve(folder: ServerFolder, charter: Charter, front: ASGIApp, console: ASGIApp) -> None:
    """Run both servers; when one ends, so does the other."""
    settings: dict[str, Any] = {"log_level": "warning", "access_log": False, "server_header": False}
    public = uvicorn.Config(
        front,
        host=charter.bind,
        port=charter.port,
        limit_concurrency=CONNECTIONS,
        timeout_keep_alive=30,
        h11_max_incomplete_event_size=HEADER_BYTES,
        ssl_certfile=folder.root / "server.crt",
        ssl_keyfile=folder.root / "server.key",
        **settings,
    )
    private = uvicorn.Config(console, host="127.0.0.1", port=charter.console, **settings)
    servers = [uvicorn.Server(public), uvicorn.Server(private)]
    running = [asyncio.create_task(server.serve()) for server in servers]
    await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    for server in servers:
        server.should_exit = True
    await asyncio.wait(running)


if __name__ == "__main__":
    main()
