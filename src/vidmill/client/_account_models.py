"""Keys and what a plan allows, as typed values."""

from datetime import datetime

from pydantic import Field

from vidmill.client._models import Wire


class Key(Wire):
    """An API key, as far as the server keeps it.

    Attributes:
        hint: How it begins; empty for keys of older releases.
        scopes: `read`, `submit`, `admin`.
        last_used_at: To a minute; None = never.
    """

    id: str
    name: str = ""
    hint: str = ""
    scopes: list[str] = Field(default_factory=list)
    user: str = ""
    created_at: datetime | None = None
    expires_at: datetime | None = None
    last_used_at: datetime | None = None


class NewKey(Key):
    """A key just made. Nobody can tell `api_key` again: keep it now."""

    api_key: str


class KeyList(Wire):
    data: list[Key]


class Limit(Wire):
    """How one limit of the plan stands.

    Attributes:
        name: `submit`, `read`, `tenant-submit`, `tenant-read`, `daily`, `queued` or `running`.
        used, remaining: None = not known now.
        window_seconds: None = it bounds what there is at one time.
    """

    name: str
    limit: int
    used: int | None = None
    remaining: int | None = None
    window_seconds: int | None = None
    resets_at: datetime | None = None


class Quota(Wire):
    """What the plan allows, and what is used of it. A limit that is not listed is not set."""

    tenant: str
    plan: str
    lane: str
    limits: list[Limit] = Field(default_factory=list)
