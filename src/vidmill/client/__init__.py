"""The Vidmill SDK, for any Python program: `from vidmill.client import Vidmill, AsyncVidmill`.

It needs httpx2 and pydantic only, and nothing else of Vidmill.
"""

from vidmill.client._async import AsyncVidmill
from vidmill.client._batch import Outcome
from vidmill.client._connection import Connection, connection_files, find_connection
from vidmill.client._errors import (
    ApiError,
    Conflict,
    ConnectionLost,
    ConnectionNotFound,
    DownloadDamaged,
    FieldError,
    InvalidRequest,
    NotFinished,
    NotFound,
    RateLimited,
    ServerError,
    ServerUnreachable,
    TaskCancelled,
    TaskError,
    TaskFailed,
    Timeout,
    TransportError,
    Unauthorized,
    VidmillError,
)
from vidmill.client._flows import Patience
from vidmill.client._models import (
    Capabilities,
    ClipOptions,
    ClipRequest,
    Eta,
    Failure,
    File,
    Page,
    Price,
    Readiness,
    Result,
    Task,
)
from vidmill.client._sync import Vidmill
from vidmill.client._video import AsyncVideo, Video

__all__ = [
    "ApiError",
    "AsyncVideo",
    "AsyncVidmill",
    "Capabilities",
    "ClipOptions",
    "ClipRequest",
    "Conflict",
    "Connection",
    "ConnectionLost",
    "ConnectionNotFound",
    "DownloadDamaged",
    "Eta",
    "Failure",
    "FieldError",
    "File",
    "InvalidRequest",
    "NotFinished",
    "NotFound",
    "Outcome",
    "Page",
    "Patience",
    "Price",
    "RateLimited",
    "Readiness",
    "Result",
    "ServerError",
    "ServerUnreachable",
    "Task",
    "TaskCancelled",
    "TaskError",
    "TaskFailed",
    "Timeout",
    "TransportError",
    "Unauthorized",
    "Video",
    "Vidmill",
    "VidmillError",
    "connection_files",
    "find_connection",
]
