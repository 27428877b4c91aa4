"""Serve the application on a socket until it is told to stop."""

from __future__ import annotations

import socket

import uvicorn

from pellucid.web.app import guarded
from pellucid.web.settings import Settings

GOODBYE = 3  # seconds for open streams of events to end


def serve(settings: Settings, listener: socket.socket) -> None:
    """Serve until a signal ends it; the workers end with it."""
    config = uvicorn.Config(
        guarded(settings),
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        h11_max_incomplete_event_size=1 << 16,
        timeout_graceful_shutdown=GOODBYE,
    )
    uvicorn.Server(config).run(sockets=[listener])
