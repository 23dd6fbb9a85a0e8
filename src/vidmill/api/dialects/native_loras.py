"""The native dialect's LoRAs: handlers and their table."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from vidmill.api.answers import json_answer
from vidmill.api.body import read_json
from vidmill.api.desk import Desk
from vidmill.api.dialects import native_lora_models as models
from vidmill.api.dialects.native_lora_request import read_upload
from vidmill.api.dialects.native_request import field_problem
from vidmill.api.dialects.native_route_parts import OF_BODIES, named
from vidmill.api.dialects.native_views import PREFIX, instant
from vidmill.api.routing import Answer, Route
from vidmill.domain import errors
from vidmill.domain.errors import InvalidRequest
from vidmill.domain.lora import SIDES, Lora
from vidmill.domain.permission import Scope
from vidmill.services.access import Caller
from vidmill.telemetry import get_logger

log = get_logger(__name__)

LORAS = f"{PREFIX}/loras"
LORA = f"{LORAS}/{{lora_name}}"

_NAME = named("lora_name", models.LORA_NAME)
_FORM_BYTES = 64 * 1024
"""What a form needs besides its files."""


@dataclass(frozen=True)
class LoraDesk:
    """The handlers, one per route of `native_lora_routes`."""

    desk: Desk

    async def upload_lora(self, request: Request, caller: Caller) -> Response:
        settings = self.desk.app.settings
        async with read_upload(
            request, settings.scratch_dir, file_max_bytes=settings.lora_file_max_bytes
        ) as upload:
            lora = await run_in_threadpool(
                self.desk.loras.add, caller.tenant_id, upload.wanted, upload.files
            )
        log.info("lora_added", lora=lora.name, version=lora.version, tenant=caller.tenant)
        location = {"Location": LORA.format(lora_name=lora.name)}
        return json_answer(lora_doc(lora), status=201, headers=location)

    def list_loras(self, _request: Request, caller: Caller) -> Response:
        found = self.desk.loras.all(caller.tenant_id)
        return json_answer({"data": [lora_doc(lora) for lora in found]})

    def lora(self, request: Request, caller: Caller) -> Response:
        return json_answer(lora_doc(self.desk.loras.get(caller.tenant_id, _name(request))))

    async def change_lora(self, request: Request, caller: Caller) -> Response:
        is_enabled = _read_changes(await read_json(request))
        lora = await run_in_threadpool(
            self.desk.loras.switch, caller.tenant_id, _name(request), is_enabled=is_enabled
        )
        return json_answer(lora_doc(lora))

    def delete_lora(self, request: Request, caller: Caller) -> Response:
        self.desk.loras.delete(caller.tenant_id, _name(request))
        log.info("lora_deleted", lora=_name(request), tenant=caller.tenant)
        return Response(status_code=204)


def native_lora_routes(desk: Desk) -> Sequence[Route]:
    """Return the routes, bound to *desk*."""
    loras = LoraDesk(desk)
    return (_upload(loras, desk.app.settings.lora_file_max_bytes), *_looks(loras), *_changes(loras))


def lora_doc(lora: Lora) -> dict[str, Any]:
    files = {side: getattr(lora, side) for side in SIDES}
    return {
        "name": lora.name,
        "version": lora.version,
        "licence": lora.licence,
        "trigger_words": list(lora.trigger_words),
        "strength": lora.strength,
        "rank": lora.rank,
        "layers": lora.targets,
        "architecture": lora.architecture,
        **{side: {"sha256": f.sha256, "size_bytes": f.size_bytes} for side, f in files.items()},
        "shared": lora.tenant_id is None,
        "enabled": lora.is_enabled,
        "created_at": instant(lora.created_at),
    }


def _upload(loras: LoraDesk, file_max_bytes: int) -> Route:
    return Route(
        method="POST",
        path=LORAS,
        handler=loras.upload_lora,
        summary="Upload a brand style: a pair of LoRA files, checked before anything uses them",
        permission=Scope.ADMIN,
        is_creating=True,
        also_bodies={"multipart/form-data": models.UPLOAD},
        body_max_bytes=len(SIDES) * file_max_bytes + _FORM_BYTES,
        answers={
            201: Answer(
                description="Tasks may name it from now on.",
                model=models.Lora,
                headers={"Location": "The LoRA."},
            )
        },
        errors=(
            *OF_BODIES,
            errors.LoraConflict,
            errors.ServiceUnavailable,
        ),
    )


def _looks(loras: LoraDesk) -> tuple[Route, ...]:
    return (
        Route(
            method="GET",
            path=LORAS,
            handler=loras.list_loras,
            summary="List the LoRAs you may use, your own and those shared by all",
            permission=Scope.READ,
            answers={200: Answer(description="All of them.", model=models.LoraList)},
            errors=(errors.ServiceUnavailable,),
        ),
        Route(
            method="GET",
            path=LORA,
            handler=loras.lora,
            summary="What is known of a LoRA",
            permission=Scope.READ,
            answers={200: Answer(description="The LoRA.", model=models.Lora)},
            errors=(errors.LoraNotFound, errors.ServiceUnavailable),
            parameters=(_NAME,),
        ),
    )


def _changes(loras: LoraDesk) -> tuple[Route, ...]:
    return (
        Route(
            method="PATCH",
            path=LORA,
            handler=loras.change_lora,
            summary="Switch a LoRA off, or on again; tasks that are queued with it stay",
            permission=Scope.ADMIN,
            body=models.LoraChanges,
            answers={200: Answer(description="How it stands now.", model=models.Lora)},
            errors=(
                *OF_BODIES,
                errors.LoraNotFound,
                errors.ServiceUnavailable,
            ),
            parameters=(_NAME,),
        ),
        Route(
            method="DELETE",
            path=LORA,
            handler=loras.delete_lora,
            summary="Delete a LoRA that no task under way is drawn with",
            permission=Scope.ADMIN,
            answers={204: Answer(description="It is gone.", media_type="")},
            errors=(errors.LoraNotFound, errors.LoraConflict, errors.ServiceUnavailable),
            parameters=(_NAME,),
        ),
    )


def _name(request: Request) -> str:
    return str(request.path_params["lora_name"])


def _read_changes(data: object) -> bool:
    try:
        return models.LoraChanges.model_validate(data).enabled
    except ValidationError as error:
        known = models.LoraChanges.model_fields
        details = error.errors(include_url=False)
        raise InvalidRequest([field_problem(detail, known) for detail in details]) from None
