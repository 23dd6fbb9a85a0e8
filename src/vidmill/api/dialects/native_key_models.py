"""Bodies and answers of keys and quota, as schemas."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from vidmill.domain.permission import Scope

KEY_ID = "key_12"
NAME_MAX_CHARS = 100
DAYS_MAX = 3650


def _schema(**facts: Any) -> Any:
    """Facts for the documentation alone: `native_keys` checks them, and says what is wrong."""
    return Field(json_schema_extra=facts)


class _Doc(BaseModel):
    model_config = ConfigDict(extra="forbid")


Name = Annotated[str, _schema(minLength=1, maxLength=NAME_MAX_CHARS)]


class KeyBody(BaseModel):
    """A key to make."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True)

    name: Name = Field(description="What it is for; you see it in the list.")
    scopes: Annotated[
        list[str], _schema(minItems=1, items={"type": "string", "enum": list(Scope)})
    ] = Field(
        description="What it may do: `read`, `submit`, `admin`. Never more than the key that asks.",
    )
    expires_in_days: Annotated[float | None, _schema(exclusiveMinimum=0, maximum=DAYS_MAX)] = Field(
        None, description="Absent = it does not expire."
    )
    user: Annotated[str | None, _schema(minLength=1, maxLength=NAME_MAX_CHARS)] = Field(
        None, description="Whose it is, of your tenant's users, made if new; absent = yours."
    )


class Key(_Doc):
    """A key, as far as it is kept: by its hash."""

    id: str = Field(examples=[KEY_ID])
    name: str
    hint: str = Field(description="How it begins; empty for keys of older releases.")
    scopes: list[Scope]
    user: str
    created_at: str
    expires_at: str | None
    last_used_at: str | None = Field(description="To a minute; null = never.")


class NewKey(Key):
    """A key just made."""

    api_key: str = Field(description="The key itself. Nobody can tell it again: keep it now.")


class KeyList(_Doc):
    """All keys of the tenant, oldest first."""

    data: list[Key]


class LimitStanding(_Doc):
    """How one limit stands."""

    name: str = Field(
        description="`submit`, `read`: requests of this key; `tenant-submit`, `tenant-read`: of all"
        " keys; `daily`: clips of the day (UTC); `queued`, `running`: clips at one time. `running`"
        " refuses nothing, more clips wait."
    )
    limit: int
    used: int | None = Field(description="null = it cannot be known now.")
    remaining: int | None
    window_seconds: int | None = Field(description="null = it bounds what there is at one time.")
    resets_at: str | None


class Quota(_Doc):
    """What your plan allows, and what is used of it. Limits that are not listed are not set."""

    tenant: str
    plan: str
    lane: str = Field(description="The best lane your tasks may take.")
    limits: list[LimitStanding]
