"""Telling systemd how the service does (Type=notify), by the protocol of sd_notify(3)."""

from __future__ import annotations

import socket
from collections.abc import Mapping

VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID")
"""What systemd hands to the main process alone; children must not speak for it."""


class Notifier:
    """Sends states such as "READY=1" to $NOTIFY_SOCKET, or does nothing where there is none."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):  # Linux's abstract namespace
            self._address = "\0" + self._address[1:]

    def send(self, *states: str) -> None:
        """Send `states` as one message. A socket that is gone is no reason to stop serving."""
        if not self._address:
            return
        text = "\n".join(state.replace("\n", " ") for state in states)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as s:
            s.setblocking(False)
            try:
                s.sendto(text.encode(), self._address)
            except OSError:
                return
