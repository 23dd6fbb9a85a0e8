"""Bodies of webhooks. The event's type decides the shape: Vidmill's envelope, or OpenAI's."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic_core import to_json

from vidmill.api.events import Teller
from vidmill.api.links import FileLinks
from vidmill.domain.clip import Asset
from vidmill.domain.ids import public_name
from vidmill.domain.webhook import ENDPOINT_PREFIX, STORYBOARD_TYPES, VIDEO_TYPES, EventType
from vidmill.services.tasks import Tasks, TaskView
from vidmill.store import glance
from vidmill.store.deliveries import Delivery
from vidmill.store.session import Database

SAMPLE_VIDEO = "video_" + "0" * 32

Doc = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Callbacks:
    """Renders deliveries as things stand when they are sent.

    Attributes:
        base_url: Where receivers find the files that links in the body lead to.
        task_doc: What a status says of a task, given how to link to a file.
        batch_doc: The same of a batch, by its public id and tenant; None = it was erased.
        storyboard_doc: The same of a storyboard, given how to link to a file.
    """

    db: Database
    tasks: Tasks
    links: FileLinks
    base_url: str
    task_doc: Callable[[TaskView, Callable[[Asset], str]], dict[str, Any]]
    batch_doc: Callable[[str, int], Doc | None]
    storyboard_doc: Callable[[str, int, Callable[[Asset], str]], Doc | None]

    def render(self, delivery: Delivery) -> bytes:
        """Return the body; of what was erased since, it says what happened and no more."""
        if delivery.subject.startswith(ENDPOINT_PREFIX):  # a test, delivered once more
            return render_sample(delivery)
        if delivery.type in VIDEO_TYPES:
            return to_json(_video_event(delivery, public_name(delivery.subject, "video")))
        if delivery.type is EventType.BATCH_COMPLETED:
            doc = self.batch_doc(delivery.subject, delivery.tenant_id)
            return to_json(_envelope(delivery, doc or {"batch_id": delivery.subject}))
        if delivery.type in STORYBOARD_TYPES:
            doc = self.storyboard_doc(delivery.subject, delivery.tenant_id, self._url_of)
            return to_json(_envelope(delivery, doc or {"storyboard_id": delivery.subject}))
        job = self.db.look(lambda conn: glance.get(conn, delivery.subject, delivery.tenant_id))
        if job is None:
            return to_json(_envelope(delivery, {"task_id": delivery.subject}))
        teller = Teller(doc=self._doc, timestamp=lambda: _instant(delivery.created_at))
        return to_json(teller.envelope(self.tasks.view(job)))

    def _doc(self, view: TaskView) -> dict[str, Any]:
        return self.task_doc(view, self._url_of)

    def _url_of(self, asset: Asset) -> str:
        return self.links.url_at(asset, self.base_url)


def render_sample(delivery: Delivery) -> bytes:
    """Return the body of a test, in the shape of the type it tests."""
    if delivery.type in VIDEO_TYPES:
        return to_json(_video_event(delivery, SAMPLE_VIDEO))
    data = {"webhook_id": delivery.subject, "message": "It works. This is a test."}
    return to_json(_envelope(delivery, data))


def _envelope(delivery: Delivery, data: Doc) -> Doc:
    return {
        "id": delivery.public_id,
        "seq": 0,
        "type": delivery.type,
        "timestamp": _instant(delivery.created_at),
        "data": data,
    }


def _video_event(delivery: Delivery, video_id: str) -> Doc:
    return {
        "id": public_name(delivery.public_id, "evt"),
        "object": "event",
        "type": delivery.type,
        "created_at": int(delivery.created_at),
        "data": {"id": video_id},
    }


def _instant(seconds: float) -> str:
    text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")
