"""The OpenAI dialect's bodies as schemas. A test holds the real answers against them."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class _Doc(BaseModel):
    model_config = ConfigDict(extra="forbid")


class OpenAIVideoRequest(BaseModel):
    """A video to make, as JSON or as a form (`multipart/form-data`, where all values are text).

    Beside these: the native fields `negative_prompt`, `seed`, `style`, `camera`, `language`,
    `enable_physics`, `frame_rate`, `priority`, `cache`, `client_reference`, `metadata` and
    `webhook_url`; and of vLLM-Omni `width`, `height`, `num_frames`, `fps`, `user`.
    """

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"prompt": "a red ball", "seconds": "4"}]}
    )

    prompt: str
    model: str | None = None
    seconds: str | float | None = Field(None, description="Absent = 4.")
    size: str | None = Field(None, description="`WxH`; absent = 720x1280.")


class OpenAIRemix(BaseModel):
    """Another prompt for the same clip."""

    prompt: str


class OpenAIVideoError(_Doc):
    code: str
    message: str


class OpenAIVideo(_Doc):
    """A video being made, or made."""

    id: str
    object: Literal["video"]
    status: Literal["queued", "in_progress", "completed", "failed"]
    progress: int = Field(ge=0, le=100)
    created_at: int
    completed_at: int | None
    expires_at: int | None = Field(description="Always null: nothing is deleted but by you.")
    model: str
    prompt: str | None
    seconds: str
    size: str
    remixed_from_video_id: str | None
    error: OpenAIVideoError | None
    queue_position: int | None
    eta_seconds: float | None
    seed: int


class OpenAIVideoList(_Doc):
    """Part of the list; the next begins after `last_id`."""

    object: Literal["list"]
    data: list[OpenAIVideo]
    has_more: bool
    first_id: str | None
    last_id: str | None


class OpenAIDeleted(_Doc):
    id: str
    object: Literal["video.deleted"]
    deleted: bool


class OpenAIModel(_Doc):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class OpenAIModelList(_Doc):
    object: Literal["list"]
    data: list[OpenAIModel]


class OpenAIWebhookRequest(BaseModel):
    """An endpoint to make or to change."""

    name: str
    url: str
    event_types: list[str]


class OpenAIWebhook(_Doc):
    """A webhook endpoint. The secret is shown when it is made and when it is rotated."""

    id: str
    object: Literal["webhook_endpoint"]
    name: str
    url: str
    event_types: list[str]
    created_at: int
    updated_at: int
    signing_secret_hint: str
    signing_secret: str | None = None


class OpenAIWebhookList(_Doc):
    object: Literal["list"]
    data: list[OpenAIWebhook]
    has_more: bool
    first_id: str | None
    last_id: str | None


class OpenAIWebhookDeleted(_Doc):
    id: str
    object: Literal["webhook_endpoint.deleted"]
    deleted: bool


class OpenAIWebhookTest(_Doc):
    """What the receiver answered to a sample."""

    object: Literal["webhook_endpoint.test"]
    webhook_endpoint_id: str
    event_type: str
    status_code: int
    success: bool


class OpenAIEventTypes(_Doc):
    object: Literal["list"]
    data: list[str]


class OpenAIRotation(BaseModel):
    keep_old_secret_active_for_24_hours: bool = False


class OpenAITestRequest(BaseModel):
    event_type: str
