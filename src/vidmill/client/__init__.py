"""The Vidmill SDK, for any Python program: `from vidmill.client import Vidmill, AsyncVidmill`.

It needs httpx2 and pydantic only, and nothing else of Vidmill. Every name that a program may use is
here and its module is private: many names for one package, so that users have one place to look.
"""

from vidmill.client._account_models import Key, Limit, NewKey, Quota
from vidmill.client._async import AsyncVidmill
from vidmill.client._batch_flows import Row
from vidmill.client._batch_models import Batch, BatchResult, BatchRow, BatchVerdict, RowProblem
from vidmill.client._batches import AsyncBatches, Batches
from vidmill.client._calls import Patience
from vidmill.client._connection import Connection, connection_files, find_connection
from vidmill.client._errors import (
    ApiError,
    BatchUnfinished,
    Conflict,
    ConnectionLost,
    ConnectionNotFound,
    DownloadDamaged,
    FieldError,
    InvalidRequest,
    ModelNotServed,
    NotFinished,
    NotFound,
    RateLimited,
    ServerError,
    ServerUnreachable,
    StoryboardCancelled,
    StoryboardFailed,
    StoryboardUnfinished,
    TaskCancelled,
    TaskError,
    TaskFailed,
    Timeout,
    TransportError,
    Unauthorized,
    VidmillError,
    WebhookRefused,
)
from vidmill.client._explaining import Estimate, Explanation
from vidmill.client._generator import AsyncVideoGenerator, VideoGenerator
from vidmill.client._keys import AsyncKeys, Keys
from vidmill.client._loras import AsyncLoras, Lora, Loras
from vidmill.client._many import Outcome
from vidmill.client._models import (
    Capabilities,
    ClipOptions,
    ClipRequest,
    Eta,
    Failure,
    File,
    Interval,
    Page,
    Price,
    Readiness,
    Result,
    Task,
    TaskEvent,
)
from vidmill.client._storyboard_models import (
    Shot,
    Storyboard,
    StoryboardEstimate,
    StoryboardShot,
)
from vidmill.client._storyboards import AsyncStoryboards, Storyboards
from vidmill.client._sync import Vidmill
from vidmill.client._verify import WebhookEvent, verify_webhook
from vidmill.client._video import AsyncVideo, Video
from vidmill.client._webhook_models import Replay, WebhookDelivery, WebhookEndpoint
from vidmill.client._webhooks import AsyncWebhooks, Webhooks

__all__ = [
    "ApiError",
    "AsyncBatches",
    "AsyncKeys",
    "AsyncLoras",
    "AsyncStoryboards",
    "AsyncVideo",
    "AsyncVideoGenerator",
    "AsyncVidmill",
    "AsyncWebhooks",
    "Batch",
    "BatchResult",
    "BatchRow",
    "BatchUnfinished",
    "BatchVerdict",
    "Batches",
    "Capabilities",
    "ClipOptions",
    "ClipRequest",
    "Conflict",
    "Connection",
    "ConnectionLost",
    "ConnectionNotFound",
    "DownloadDamaged",
    "Estimate",
    "Eta",
    "Explanation",
    "Failure",
    "FieldError",
    "File",
    "Interval",
    "InvalidRequest",
    "Key",
    "Keys",
    "Limit",
    "Lora",
    "Loras",
    "ModelNotServed",
    "NewKey",
    "NotFinished",
    "NotFound",
    "Outcome",
    "Page",
    "Patience",
    "Price",
    "Quota",
    "RateLimited",
    "Readiness",
    "Replay",
    "Result",
    "Row",
    "RowProblem",
    "ServerError",
    "ServerUnreachable",
    "Shot",
    "Storyboard",
    "StoryboardCancelled",
    "StoryboardEstimate",
    "StoryboardFailed",
    "StoryboardShot",
    "StoryboardUnfinished",
    "Storyboards",
    "Task",
    "TaskCancelled",
    "TaskError",
    "TaskEvent",
    "TaskFailed",
    "Timeout",
    "TransportError",
    "Unauthorized",
    "Video",
    "VideoGenerator",
    "Vidmill",
    "VidmillError",
    "WebhookDelivery",
    "WebhookEndpoint",
    "WebhookEvent",
    "WebhookRefused",
    "Webhooks",
    "connection_files",
    "find_connection",
    "verify_webhook",
]
