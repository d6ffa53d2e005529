"""GET /openapi.json and the page at /docs: bytes that stay the same while the process lives."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import falcon
import falcon.asgi
import orjson

from hailo_clip import __version__
from hailo_clip.api.openapi import document
from hailo_clip.api.openapi_examples import PHOTO_FILE, PHOTO_PATH
from hailo_clip.api.openapi_parts import JSON, Facts
from hailo_clip.api.respond import Request, Response
from hailo_clip.api.service import Service

DATA = Path(__file__).parent / "data"

FILES = {
    "/docs": ("docs.html", "text/html; charset=utf-8"),
    "/docs/docs.css": ("docs.css", "text/css; charset=utf-8"),
    "/docs/docs.js": ("docs.js", "text/javascript; charset=utf-8"),
    "/docs/try.js": ("try.js", "text/javascript; charset=utf-8"),
    PHOTO_PATH: (PHOTO_FILE.name, "image/jpeg"),
}
"""Files of the page by path."""

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""The page may run and load its own files, and nothing else."""

SECURITY = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class Fixed:
    """GET of bytes that do not change.

    Args:
        data: the body. kind: its media type.
    """

    def __init__(self, data: bytes, kind: str) -> None:
        self._data, self._kind = data, kind
        self._etag = falcon.ETag(hashlib.sha256(data).hexdigest()[:32])

    async def on_get(self, req: Request, resp: Response) -> None:
        """200 with the bytes, or 304 to a client that has them."""
        resp.set_headers(SECURITY)
        resp.etag = self._etag.dumps()
        resp.cache_control = ("no-cache",)  # may be kept, must be asked for: an upgrade changes it
        if any(tag in ("*", self._etag) for tag in req.if_none_match or ()):
            resp.status = falcon.HTTP_304
            return
        resp.content_type, resp.data = self._kind, self._data

    on_head = on_get


def facts_of(service: Service) -> Facts:
    """What the document says of this service."""
    config = service.config
    return Facts(
        version=__version__,
        model=service.manifest.name,
        dimension=service.manifest.dimension,
        max_body_mib=config.server.max_body_mib,
        request_timeout_s=config.queue.request_timeout_s,
        keys=config.auth.keys_file is not None,
        open_metrics=config.auth.metrics == "open",
    )


def add_docs(app: falcon.asgi.App[Any, Any], service: Service) -> None:
    """Put the document and its page into `app`."""
    app.add_route("/openapi.json", Fixed(orjson.dumps(document(facts_of(service))), JSON))
    for path, (name, kind) in FILES.items():
        app.add_route(path, Fixed((DATA / name).read_bytes(), kind))
