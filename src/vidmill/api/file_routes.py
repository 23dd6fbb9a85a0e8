"""Signed links to files that this process serves itself."""

from collections.abc import Sequence
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from vidmill.api.desk import Desk
from vidmill.api.files import file_response
from vidmill.api.routing import Answer, Route
from vidmill.domain import errors
from vidmill.storage.links import verify


@dataclass(frozen=True)
class Files:
    desk: Desk

    def file(self, request: Request) -> Response:
        """Serve the file a link names; the link is the permission."""
        app = self.desk.app
        key = request.path_params["key"]
        query = request.query_params
        verify(
            key,
            query.get("expires", ""),
            query.get("signature", ""),
            now=app.clock(),
            secret=app.signing_secret,
        )
        name = "-".join([key.partition("/")[0], key.rpartition("/")[2].partition(".")[0]])
        return file_response(request, app.blobs, key, name=name)


def file_routes(desk: Desk) -> Sequence[Route]:
    return (
        Route(
            method="GET",
            path="/files/{key:path}",
            handler=Files(desk).file,
            summary="A file, by signed link",
            permission=None,
            answers={
                200: Answer(description="The file.", media_type="application/octet-stream"),
                206: Answer(description="A part.", media_type="application/octet-stream"),
                304: Answer(description="Nothing changed.", media_type=""),
            },
            errors=(
                errors.NotFound,
                errors.LinkInvalid,
                errors.ResultExpired,
                errors.RangeNotSatisfiable,
            ),
            parameters=tuple(
                {"name": name, "in": place, "required": True, "schema": {"type": "string"}}
                for name, place in (("key", "path"), ("expires", "query"), ("signature", "query"))
            ),
            also_head=True,
            tag="files",
        ),
    )
