"""All settings, from the environment (`VIDMILL_*`). Read by `wiring` and the entry points only."""

import os
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from vidmill.domain.clip import Resolution
from vidmill.domain.devices import devices_of

EVENT_SCHEMES = frozenset({"redis", "rediss", "postgresql"})
"""Brokers and databases that also carry events."""


def default_data_dir() -> Path:
    """Return `$XDG_DATA_HOME/vidmill` (XDG Base Directory Specification); the SDK looks there."""
    root = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(root) / "vidmill"


class Settings(BaseSettings):
    """Frozen; every field is `VIDMILL_<NAME>` in the environment, listed in docs/settings.md."""

    model_config = SettingsConfigDict(env_prefix="VIDMILL_", frozen=True, extra="forbid")

    # Where things are
    data_dir: Path = Field(default_factory=default_data_dir, description="Database, files, keys.")
    database_url: str = Field(
        "",
        description="`postgresql://user@host/name`, or a SQLite URL; empty = SQLite in the data"
        " folder (WAL, synchronous FULL).",
    )
    database_connections: int = Field(
        10, ge=2, description="PostgreSQL connections that one process may hold."
    )
    broker_url: str = Field(
        "",
        description="Celery broker that wakes workers: `redis://`, `amqp://` or"
        " `confluentkafka://`; empty = sockets in the data folder.",
    )
    events_url: str = Field(
        "",
        description="Where events travel: `redis://`, `postgresql://` or `local://`; empty = the"
        " broker if it is Redis, else the database if it is PostgreSQL, else the data folder.",
    )
    storage_url: str = Field("", description="obstore URL for files; empty = the data folder.")
    host: str = Field("127.0.0.1", description="Address the API listens on.")
    port: int = Field(8600, ge=0, le=65535, description="Port of the API; 0 = any free one.")
    public_url: str = Field(
        "", description="Base of links in answers; empty = the URL the request came by."
    )
    signing_secret: SecretStr = Field(
        SecretStr(""), description="Signs file links; empty = a random one kept in the data folder."
    )

    # Model
    profile: str = Field("tiny", description="Model profile; `vidmill models` lists them.")
    model_path: str = Field("", description="Folder or hub id that overrides the profile's source.")
    device: str = Field(
        "auto",
        description="`auto`, `cpu`, `cuda` or `cuda:N`; `cuda:0,cuda:1` or `cuda:0-3` divides each"
        " clip among 2, 4 or 8 GPUs.",
    )
    layout: Literal["auto", "resident", "parked", "fp8", "offload"] = Field(
        "auto",
        description="Where the parts of the model lie: `resident`, `parked`, `fp8` or `offload`;"
        " `auto` = the first of the profile's that fits the free memory (`vidmill models plan`).",
    )
    torch_threads: int = Field(0, ge=0, description="CPU threads; 0 = as the profile says.")
    remote_url: str = Field(
        "",
        description="Address of the server that renders, for profiles with a remote engine; empty ="
        " the profile's.",
    )
    remote_api_key: SecretStr = Field(
        SecretStr(""), description="Key of that server; only workers need it."
    )

    # Prompt enhancer
    enhancer_url: str = Field(
        "",
        description="Base of an OpenAI-compatible API, such as `http://llm:8000/v1`, which writes"
        " prompts out for requests with `enhance`: those prompts leave Vidmill. Empty = off.",
    )
    enhancer_model: str = Field("", description="Model to ask it for.")
    enhancer_api_key: SecretStr = Field(SecretStr(""), description="Its key, if it wants one.")
    enhancer_timeout_s: float = Field(
        15.0, gt=0, le=60, description="Longest wait for it; then the request is refused (503)."
    )
    enhancer_max_chars: int = Field(
        800, ge=1, description="Longest prompt taken from it, code points."
    )

    # Limits at the door
    prompt_max_chars: int = Field(200, ge=1, description="Code points of the NFC text, trimmed.")
    dialect_prompt_max_chars: int = Field(
        800, ge=1, description="The same where a client speaks another API than Vidmill's own."
    )
    model_aliases: tuple[str, ...] = Field(
        (), description='Further model names that other APIs may ask for, such as `["sora-2"]`.'
    )
    negative_prompt_max_chars: int = Field(500, ge=0, description="The same, negative prompt.")
    duration_min_s: float = Field(3.0, gt=0, description="Shortest clip, seconds.")
    duration_max_s: float = Field(10.0, gt=0, description="Longest clip, seconds.")
    resolutions: tuple[Resolution, ...] = Field(
        (Resolution.P480, Resolution.P720), description="Delivered sizes on offer."
    )
    frame_rates: tuple[int, ...] = Field(
        (16, 24, 25, 30), description="Delivered frame rates on offer."
    )
    default_frame_rate: int = Field(24, description="Frame rate where the request names none.")
    body_max_bytes: int = Field(64 * 1024, ge=1024, description="Largest request body.")
    body_wait_s: float = Field(
        30.0,
        gt=0,
        description="How long a request may let its body be waited for, and a second more for each"
        " KiB that came; beyond: 408.",
    )
    batch_rows_max: int = Field(10_000, ge=1, description="Most rows of one batch.")
    batch_body_max_bytes: int = Field(
        16 * 1024 * 1024, ge=1024, description="Largest body of a request that uploads a batch."
    )
    storyboard_shots_max: int = Field(20, ge=2, description="Most shots of one storyboard.")
    storyboard_duration_max_s: float = Field(
        120.0, gt=0, description="Longest storyboard, seconds, its cross-fades taken off."
    )
    lora_file_max_bytes: int = Field(
        2 * 2**30, ge=1024, description="Largest LoRA file; a pair has two of them."
    )
    lora_rank_max: int = Field(128, ge=1, le=1024, description="Largest rank of a LoRA.")
    lora_cache_bytes: int = Field(
        20 * 2**30,
        ge=0,
        description="LoRA files that a worker keeps on disk, in `<data_dir>/loras`; those used"
        " longest ago go first.",
    )
    queue_max: int = Field(
        10_000, ge=1, description="Queued tasks a tenant of the plan `default` may have; then 429."
    )
    queue_total_max: int = Field(
        100_000, ge=1, description="Queued tasks of all tenants together; beyond: 429."
    )
    requests_max: int = Field(
        2000, ge=1, description="Requests one process works on at once; beyond: 503."
    )
    watchers_max: int = Field(
        5000, ge=1, description="Event streams one process keeps open; beyond: 503."
    )
    limits_url: str = Field(
        "",
        description="Where rate limits are counted: `redis://`, shared by all, or `memory://`, each"
        " process for itself; empty = the broker if it is Redis, else memory.",
    )
    cache_ttl_s: float = Field(
        604_800.0, ge=0, description="How long a clip answers identical requests; 0 = never."
    )
    price_480p_credits_per_s: int = Field(
        10, ge=0, description="Price of a delivered second at 480p, credits."
    )
    price_720p_credits_per_s: int = Field(25, ge=0, description="The same at 720p.")

    # Queue
    pool: str = Field(
        "default", description="Pool this worker serves, and that of plans which name none."
    )
    worker_class: str = Field(
        "", description="Class of this worker, whose routes name its pools; empty = only its pool."
    )
    batch_age_s: float = Field(
        1800.0, gt=0, description="A batch task that waited so long takes turns with standard ones."
    )
    lease_s: float = Field(30.0, gt=0, description="A worker silent for longer has lost its jobs.")
    heartbeat_s: float = Field(5.0, gt=0, description="How often a worker renews its leases.")
    poll_s: float = Field(2.0, gt=0, description="Idle worker's poll, the bound on a lost ticket.")
    sweep_s: float = Field(5.0, gt=0, description="How often expired leases are looked for.")
    promote_s: float = Field(1.0, gt=0, description="How often due retries are queued again.")
    reconcile_s: float = Field(10.0, gt=0, description="How often lost tickets are sent again.")
    audit_s: float = Field(300.0, gt=0, description="How often counters are checked against rows.")
    retry_base_s: float = Field(10.0, ge=0, description="First retry delay; doubles each time.")
    retry_cap_s: float = Field(600.0, ge=0, description="Longest retry delay.")
    max_attempts: int = Field(4, ge=1, description="One run and the retries after it.")
    crash_max: int = Field(
        3, ge=1, description="A task that ended its render process so often is failed."
    )
    breaker_failures: int = Field(
        5, ge=1, description="Different tasks in a row the engine fails before a pool is rested."
    )
    breaker_rest_s: float = Field(
        30.0, gt=0, description="First rest of a pool before one task is tried; doubles each time."
    )
    breaker_rest_cap_s: float = Field(600.0, gt=0, description="Longest rest of a pool.")
    worker_failures: int = Field(
        3,
        ge=1,
        description="Different tasks in a row the engine fails on one worker before the worker"
        " loads its model anew; failing again, it takes itself out.",
    )
    load_limit_s: float = Field(
        1800.0,
        gt=0,
        description="Loading and warming the model may take so long, then it is"
        " killed and tried again; a download counts, and goes on where it was.",
    )
    time_limit_s: float = Field(
        1800.0, gt=0, description="Hard limit of one run; then it is killed."
    )
    cancel_grace_s: float = Field(
        10.0, gt=0, description="Wait for a cancelled run before killing it."
    )
    drain_s: float = Field(600.0, ge=0, description="Ctrl-C waits this long for the running clip.")
    progress_interval_s: float = Field(
        0.5, ge=0, description="Least time between a phase's events."
    )
    finish_backlog: int = Field(2, ge=1, description="Rendered clips that may wait for finishing.")

    # Output
    encoder_preset: Literal["ultrafast", "veryfast", "fast", "medium", "slow"] = Field(
        "medium", description="x264 preset."
    )
    encoder_crf: int = Field(
        18, ge=0, le=51, description="x264 constant rate factor; lower = larger."
    )
    interpolation: Literal["flow", "blend"] = Field(
        "flow", description="How frames between the model's are made: DIS optical flow or blending."
    )
    preview_frames: bool = Field(
        default=True,
        description="Keep small pictures of a clip while it is drawn, at a quarter, half and three"
        " quarters of its steps.",
    )
    link_ttl_s: int = Field(3600, ge=10, description="Life of a signed file link, seconds.")

    # Webhooks
    webhook_http: bool = Field(
        default=False, description="Webhook URLs may be `http://`; otherwise `https://` alone."
    )
    webhook_allow: tuple[str, ...] = Field(
        (),
        description="Hosts and networks inside your walls that webhooks may reach, such as"
        ' `["hooks.internal", "10.1.0.0/16"]`; all other private addresses are refused.',
    )

    # Logs and metrics
    metrics_token: SecretStr = Field(
        SecretStr(""), description="Bearer token of `/metrics`; empty = answered on loopback only."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Log level."
    )
    log_format: Literal["auto", "json", "text"] = Field(
        "auto", description="`auto` = text on a terminal, JSON lines elsewhere."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.duration_min_s > self.duration_max_s:
            raise ValueError("VIDMILL_DURATION_MIN_S is above VIDMILL_DURATION_MAX_S; swap them")
        if self.default_frame_rate not in self.frame_rates:
            raise ValueError(
                f"VIDMILL_DEFAULT_FRAME_RATE {self.default_frame_rate} is not a VIDMILL_FRAME_RATES"
            )
        if self.enhancer_url and not self.enhancer_url.startswith(("http://", "https://")):
            raise ValueError(
                f"VIDMILL_ENHANCER_URL {self.enhancer_url!r} is no address; write it like"
                " http://llm:8000/v1"
            )
        if self.enhancer_url and not self.enhancer_model:
            raise ValueError("VIDMILL_ENHANCER_MODEL is empty; name the model to ask for")
        if self.heartbeat_s * 2 > self.lease_s:
            raise ValueError("VIDMILL_LEASE_S must be at least twice VIDMILL_HEARTBEAT_S")
        try:
            devices_of(self.device)
        except ValueError as error:
            raise ValueError(f"VIDMILL_DEVICE {error}") from error
        return self

    @property
    def effective_database_url(self) -> str:
        return self.database_url or f"sqlite:///{self.data_dir.absolute() / 'vidmill.db'}"

    @property
    def effective_storage_url(self) -> str:
        return self.storage_url or (self.data_dir.absolute() / "files").as_uri()

    @property
    def effective_limits_url(self) -> str:
        is_redis = self.broker_url.partition(":")[0] in {"redis", "rediss"}
        return self.limits_url or (self.broker_url if is_redis else "memory://")

    @property
    def run_dir(self) -> Path:
        """Sockets, locks and pid files: nothing that outlives the processes."""
        return self.data_dir.absolute() / "run"

    @property
    def scratch_dir(self) -> Path:
        """Clips being encoded, a folder per worker; on the same disk as the local store."""
        return self.data_dir.absolute() / "tmp"

    @property
    def lora_dir(self) -> Path:
        """LoRA files that this machine's workers fetched."""
        return self.data_dir.absolute() / "loras"

    @property
    def effective_queue_url(self) -> str:
        return self.broker_url or f"local://{self.run_dir}"

    @property
    def effective_events_url(self) -> str:
        candidates = (self.broker_url, self.effective_database_url)
        shared = (u for u in candidates if u.partition(":")[0] in EVENT_SCHEMES)
        return self.events_url or next(shared, f"local://{self.run_dir}")
