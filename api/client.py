"""A client for the service: typed, with retries, deadlines and numpy vectors.

    from hailo_clip.api.client import Client

    with Client("http://localhost:5000") as client:
        print(client.classify("photo.jpg", ["a cat", "a dog"]).best)

`AsyncClient` does the same in coroutines. docs/client.md shows more.
"""

from hailo_clip.api.client_async import AsyncClient
from hailo_clip.api.client_calls import ClassifyOptions, LabelSetOptions, ScoreMode, Terms
from hailo_clip.api.client_errors import (
    BadRequest,
    DeadlineExceeded,
    ItemFailed,
    ModelChanged,
    NotFound,
    Overloaded,
    RequestFailed,
    ServerFault,
    TooLarge,
    Unauthorized,
    Unavailable,
    UnexpectedAnswer,
    Unreachable,
    UnsupportedMediaType,
)
from hailo_clip.api.client_exchange import DEFAULT_DEADLINE_S, DEFAULT_URL
from hailo_clip.api.client_images import ImageLike
from hailo_clip.api.client_results import (
    Check,
    Classification,
    Classifications,
    Embedding,
    Embeddings,
    Health,
    ItemError,
    Label,
    LabelSet,
    LabelSetSummary,
    Model,
    Readiness,
    Vectors,
)
from hailo_clip.api.client_retry import RetryPolicy
from hailo_clip.api.client_sync import Client

__all__ = [
    "DEFAULT_DEADLINE_S",
    "DEFAULT_URL",
    "AsyncClient",
    "BadRequest",
    "Check",
    "Classification",
    "Classifications",
    "ClassifyOptions",
    "Client",
    "DeadlineExceeded",
    "Embedding",
    "Embeddings",
    "Health",
    "ImageLike",
    "ItemError",
    "ItemFailed",
    "Label",
    "LabelSet",
    "LabelSetOptions",
    "LabelSetSummary",
    "Model",
    "ModelChanged",
    "NotFound",
    "Overloaded",
    "Readiness",
    "RequestFailed",
    "RetryPolicy",
    "ScoreMode",
    "ServerFault",
    "Terms",
    "TooLarge",
    "Unauthorized",
    "Unavailable",
    "UnexpectedAnswer",
    "Unreachable",
    "UnsupportedMediaType",
    "Vectors",
]
