"""Every status code that is no success, with its causes, as the OpenAPI document tells of them. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from hailo_clip.api.body import READ_TIMEOUT_S
from hailo_clip.api.guard import HEAD_S
from hailo_clip.api.gunicorn_conf import MAX_HEADER, MAX_HEADERS, MAX_REQUEST_LINE
from hailo_clip.api.openai_errors import InvalidParameter, ModelNotFound, openai_error, openai_shape
from hailo_clip.api.openapi_examples import FINGERPRINT
from hailo_clip.api.openapi_parts import Facts, Json
from hailo_clip.shared import errors
from hailo_clip.shared.errors import HailoClipError


@dataclass(frozen=True, slots=True)
class Cause:
    """One reason for a status code.

    Attributes:
        name: for references. status: HTTP's.
        when: the reason, one sentence.
        message: an answer's words, as a test has seen them.
        error: the class that has this status; None: it is the HTTP server's or the framework's own.
        everywhere: any request may meet it.
        retry: what a client should do.
    """

    name: str
    status: int
    when: str
    message: str
    error: type[HailoClipError] | None = None
    everywhere: bool = False
    retry: str = "no"

    def body(self, shape: str) -> Json:
        """The JSON of such an answer."""
        if shape != "OpenAIProblem":
            return {"error": self.message}
        if self.error is None:
            return openai_shape(self.message, self.status)
        if issubclass(self.error, InvalidParameter):
            return openai_error(self.error(self.message, "input"))
        return openai_error(self.error(self.message))


AFTER = "yes, after Retry-After"
LATER = "yes, with a longer deadline"
LARGER = "no; make it smaller"


def causes(facts: Facts) -> tuple[Cause, ...]:
    """All of them, by status."""
    limit = facts.max_body_mib
    wait = f"{facts.request_timeout_s:g} s"
    return (
        Cause(
            "field",
            400,
            "A field or header is missing, of the wrong kind or beyond its limit, or an image can't be "
            "decoded; "
            "the message names the field, what is wrong and what is allowed.",
            "Missing or invalid 'prompts' array",
            errors.ClientError,
        ),
        Cause(
            "body",
            400,
            "The body is not what its media type says: no JSON object, no form.",
            "The body is empty; it must be a JSON object",
            errors.ClientError,
        ),
        Cause(
            "parameter",
            400,
            "A field of the body is wrong; `param` names it.",
            "Missing or invalid 'input': it is missing",
            InvalidParameter,
        ),
        Cause(
            "many-sets",
            400,
            "As many label sets are kept as may be kept; one must be deleted first.",
            "There are 1000 label sets, and no more than 1000 are kept; delete one first",
            errors.LimitReached,
        ),
        Cause(
            "query",
            400,
            "The query is not percent-encoded, or a value in it is none of those allowed.",
            "The query must be percent-encoded",
            errors.ClientError,
            everywhere=True,
        ),
        Cause(
            "malformed",
            400,
            "The request is no valid HTTP/1.1: head, Host, length or chunks.",
            "Malformed HTTP request: Duplicate Content-Length header",
            everywhere=True,
        ),
        Cause(
            "key",
            401,
            "API keys are in use (`auth.keys_file`), and the request carries none, an unknown one, or "
            "several.",
            "An API key is needed; send it as 'Authorization: Bearer KEY' or as 'X-API-Key: KEY'",
            errors.Unauthorized,
        ),
        Cause("path", 404, "There is no such path.", "There is no /v1/embed", errors.NotFound),
        Cause(
            "label-set",
            404,
            "There is no label set of that name.",
            "There is no label set 'ppe'",
            errors.NotFound,
        ),
        Cause(
            "model",
            404,
            "The model asked for is not the one that is served.",
            f"The model 'clip' is not served here; this service has {facts.model!r}",
            ModelNotFound,
        ),
        Cause(
            "method",
            405,
            "The path exists, the method does not; the header Allow names those that do.",
            "GET is not allowed on /v1/classify; allowed: POST, OPTIONS",
        ),
        Cause(
            "slow-head",
            408,
            f"The request's head did not arrive within {HEAD_S:g} s of the connection.",
            "The request's head did not arrive in time",
            everywhere=True,
            retry="yes",
        ),
        Cause(
            "slow-body",
            408,
            f"The body did not arrive within {READ_TIMEOUT_S:g} s, or stopped before its end.",
            "The body stopped before its end",
            errors.RequestTimeout,
            retry="yes",
        ),
        Cause(
            "fingerprint",
            409,
            "Another model is served than X-Require-Model-Fingerprint asks for; the message names both.",
            f"X-Require-Model-Fingerprint asks for {'0' * 32!r}, the model served is {FINGERPRINT!r}; "
            "embeddings of the two must not be mixed",
            errors.FingerprintConflict,
        ),
        Cause(
            "large-body",
            413,
            f"The body is larger than {limit} MiB (`server.max_body_mib`).",
            f"The body is larger than the limit of {limit} MiB",
            errors.BodyTooLarge,
            retry=LARGER,
        ),
        Cause(
            "long-line",
            414,
            "The request line, with path and query, is too long.",
            f"The request line is longer than {MAX_REQUEST_LINE} bytes",
            everywhere=True,
            retry=LARGER,
        ),
        Cause(
            "media-type",
            415,
            "The body's media type, charset or content coding is not one that this endpoint takes.",
            "Content-Type must be application/json, is 'text/plain'",
            errors.UnsupportedMediaType,
        ),
        Cause(
            "queue-full",
            429,
            "As many requests or bytes wait as may wait (`queue.max_depth`, `queue.max_bytes_mib`), or a "
            "tenant with "
            "less waiting was let in instead.",
            "10 requests wait, at most 10 may",
            errors.QueueFull,
            retry=AFTER,
        ),
        Cause(
            "too-late",
            429,
            "The queue is so long that the answer could not be there by the deadline.",
            "the estimated wait of 4.2 s is beyond the deadline of 1.5 s",
            errors.DeadlineUnreachable,
            retry=AFTER,
        ),
        Cause(
            "many-bodies",
            429,
            "This process holds or decodes as much as it may, or as much of one tenant.",
            "your request bodies hold 134000000 bytes, at most 134217728 may",
            errors.QueueFull,
            retry=AFTER,
        ),
        Cause(
            "large-head",
            431,
            f"A header is longer than {MAX_HEADER} bytes, or there are more than {MAX_HEADERS}.",
            f"A header is longer than {MAX_HEADER} bytes, or there are more than {MAX_HEADERS}",
            everywhere=True,
            retry=LARGER,
        ),
        Cause(
            "inference",
            500,
            "The encoder failed on this input, alone and twice over, or this input ended a worker a short "
            "while ago.",
            "Failed to encode image",
            errors.InferenceFailed,
        ),
        Cause(
            "internal",
            500,
            "A fault of this service; the log has it under the request id.",
            "Internal error, request id 4bf92f3577b34da6",
            everywhere=True,
        ),
        Cause(
            "coding",
            501,
            "Transfer-Encoding is not chunked.",
            "The transfer coding 'xchunked' is not supported, only chunked",
            everywhere=True,
        ),
        Cause(
            "starting",
            503,
            "No worker is ready yet, or none is any more, or the service is shutting down.",
            "the service is starting: loading",
            errors.Unavailable,
            retry=AFTER,
        ),
        Cause(
            "not-stored",
            503,
            "The disk does not take the change of a label set; the set is as it was before.",
            "label sets can't be stored: No space left on device",
            errors.Unavailable,
            retry=AFTER,
        ),
        Cause(
            "connections",
            503,
            "Too many connections (`server.max_connections`).",
            "too many connections",
            everywhere=True,
            retry=AFTER,
        ),
        Cause(
            "deadline",
            504,
            f"The answer was not there by the deadline, or could not have been: X-Deadline-Ms, else {wait} "
            "(`queue.request_timeout_s`).",
            "the deadline passed after 30.0 s, while waiting in the queue",
            errors.DeadlineExceeded,
            retry=LATER,
        ),
    )


INFERENCE = (
    "field",
    "body",
    "slow-body",
    "fingerprint",
    "large-body",
    "media-type",
    "queue-full",
    "too-late",
    "many-bodies",
    "inference",
    "starting",
    "deadline",
)
"""What may happen to a request for embeddings or scores."""
