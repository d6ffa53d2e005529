"""GET /metrics: the broker's numbers as Prometheus text.

Frontends have none of their own: a scrape reaches one of several processes at random, so a number that
each of them keeps for itself would jump about. What they count goes to the broker with their pings.
"""

from __future__ import annotations

from hailo_clip.api.respond import Request, Response
from hailo_clip.api.service import Service
from hailo_clip.shared.metrics import CONTENT_TYPE, render

DOWN = (("up", (), 0.0), ("ready", (), 0.0))
"""What is known while the broker does not answer."""


class MetricsResource:
    """GET /metrics."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def on_get(self, req: Request, resp: Response) -> None:
        """Always 200: that the broker does not answer is a fact to be stored, not a failed scrape."""
        snapshot = await self._service.gateway.status()
        resp.content_type = CONTENT_TYPE
        resp.cache_control = ("no-store",)
        if snapshot is None:
            resp.text = render({}, DOWN)
        else:
            gauges = [(name, tuple(labels), value) for name, labels, value in snapshot["gauges"]]
            resp.text = render(snapshot["metrics"], gauges)

    on_head = on_get
