"""LoRA pairs: what is uploaded is judged, stored under its hash, and from then on has a name."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from vidmill.domain.errors import FieldProblem, InvalidRequest, LoraConflict, LoraNotFound
from vidmill.domain.lora import (
    LICENCE_MAX_CHARS,
    SIDES,
    Lora,
    Side,
    blob_key,
    judge_name,
    judge_strength,
    judge_trigger_words,
)
from vidmill.domain.lora_files import RANK_MAX, FileFacts, Pair, architecture, judge_pair
from vidmill.domain.ports import BlobStore
from vidmill.domain.profile import ModelProfile
from vidmill.store import loras
from vidmill.store.session import Connection, Database, UnitOfWork

LORAS_MAX = 100
"""Of one tenant: a style more than that is a mistake in a script."""

_REMEMBERED_S = 1.0
"""A batch of 10,000 rows names the same few LoRAs 10,000 times."""

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class WantedLora:
    """What the owner says of a pair."""

    name: str
    licence: str
    trigger_words: tuple[str, ...] = ()
    strength: float = 1.0


class Loras:
    """The register. Methods block; *tenant_id* None = shared by all, the operator's.

    Args:
        read_facts: Says what a file is; raises ValueError where it is no safetensors file.
        clock: Seconds; for what is remembered.
    """

    def __init__(
        self,
        *,
        db: Database,
        blobs: BlobStore,
        profile: ModelProfile,
        read_facts: Callable[[Path], FileFacts],
        clock: Callable[[], float],
        rank_max: int = RANK_MAX,
    ) -> None:
        self._db = db
        self._blobs = blobs
        self._profile = profile
        self._read_facts = read_facts
        self._clock = clock
        self._rank_max = rank_max
        self._lock = threading.Lock()
        self._remembered: dict[int, tuple[float, Sequence[Lora]]] = {}

    def all(self, tenant_id: int | None) -> list[Lora]:
        """Return what *tenant_id* may use and manage, its own first, switched off ones too."""
        return self._db.read(lambda conn: loras.of_tenant(conn, tenant_id))

    def get(self, tenant_id: int | None, name: str) -> Lora:
        """Return the LoRA that *tenant_id* means by *name*.

        Raises:
            LoraNotFound: There is none.
        """
        return self._db.read(lambda conn: _found(conn, tenant_id, name))

    def offered(self, tenant_id: int) -> Mapping[str, Lora]:
        """Return what a clip of *tenant_id* may be drawn with, as it was a second ago at most."""
        if not self._profile.takes_loras:
            return {}
        now = self._clock()
        with self._lock:
            held = self._remembered.get(tenant_id)
        if held is None or not 0 <= now - held[0] < _REMEMBERED_S:
            held = now, self.all(tenant_id)
            with self._lock:
                if len(self._remembered) > LORAS_MAX:
                    self._remembered.clear()
                self._remembered[tenant_id] = held
        fitting = architecture(self._profile.expert_configs["high"])
        by_name: dict[str, Lora] = {}
        for lora in held[1]:  # its own hide shared ones, even while they are switched off
            by_name.setdefault(lora.name, lora)
        return {
            name: lora
            for name, lora in by_name.items()
            if lora.is_enabled and lora.architecture == fitting
        }

    def chosen(self, tenant_id: int, name: str | None) -> tuple[Lora | None, list[FieldProblem]]:
        """Return the LoRA that *tenant_id* means by *name*, or why there is none to draw with."""
        if name is None or not self._profile.takes_loras:  # which the order's own checks tell
            return None, []
        offered = self.offered(tenant_id)
        if name in offered:
            return offered[name], []
        choices = ", ".join(sorted(offered))
        remedy = f"choose one of: {choices}" if choices else "none is registered; leave it out"
        problem = FieldProblem(
            pointer="#/lora/name",
            code="not_offered",
            message=f"{name[:40]!r} is not on offer; {remedy}",
            limit=choices,
        )
        return None, [problem]

    def add(self, tenant_id: int | None, wanted: WantedLora, files: Mapping[Side, Path]) -> Lora:
        """Judge the pair, store its files, and register it.

        Raises:
            InvalidRequest: All that is wrong with the two files and what is said of them.
            LoraConflict: The name is taken, or there are too many.
            StorageFailed: The files could not be stored.
        """
        facts, pair = self._judge(wanted, files)
        self._refuse_conflict(tenant_id, wanted.name)
        self._store(facts, files)
        values: dict[str, Any] = {
            "name": wanted.name,
            "tenant_id": tenant_id,
            "licence": wanted.licence,
            "trigger_words": list(wanted.trigger_words),
            "strength": wanted.strength,
            "rank": pair.rank,
            "targets": pair.targets,
            "architecture": architecture(self._profile.expert_configs["high"]),
        }
        for side in SIDES:
            values[f"{side}_sha256"] = facts[side].sha256
            values[f"{side}_bytes"] = facts[side].size_bytes
        lora = self._write(lambda uow: loras.create(uow, values))
        if lora is None:
            raise _taken(wanted.name)
        self._store(facts, files)  # who deleted the last other LoRA of these files meanwhile
        return lora

    def switch(self, tenant_id: int | None, name: str, *, is_enabled: bool) -> Lora:
        """Put an own LoRA on offer or take it off; what is queued with it is drawn all the same.

        Raises:
            LoraNotFound: *tenant_id* has none of that name.
        """

        def write(uow: UnitOfWork) -> Lora:
            lora = loras.enable(uow, _own(uow.conn, tenant_id, name).id, is_enabled=is_enabled)
            assert lora is not None, "found in this transaction"
            return lora

        return self._write(write)

    def delete(self, tenant_id: int | None, name: str) -> None:
        """Forget an own LoRA, and its files if no other has them.

        Raises:
            LoraNotFound: *tenant_id* has none of that name.
            LoraConflict: Tasks that are not over are drawn with it.
        """

        def write(uow: UnitOfWork) -> list[str]:
            lora = _own(uow.conn, tenant_id, name)
            if loras.is_in_use(uow.conn, lora):
                raise LoraConflict(
                    f"tasks under way are drawn with {name}; switch it off, and delete it when they"
                    " are over"
                )
            loras.remove(uow, lora.id)
            hashes = (lora.high.sha256, lora.low.sha256)
            return [sha for sha in hashes if not loras.has_file(uow.conn, sha)]

        for sha256 in self._write(write):
            self._blobs.delete_prefix(f"loras/{sha256}")

    def _judge(
        self, wanted: WantedLora, files: Mapping[Side, Path]
    ) -> tuple[Mapping[Side, FileFacts], Pair]:
        if not self._profile.takes_loras:
            message = f"the model {self._profile.name} takes no LoRAs"
            raise InvalidRequest([FieldProblem(pointer="#", code="unsupported", message=message)])
        wrong = [
            *judge_name(wanted.name),
            *judge_strength(wanted.strength),
            *judge_trigger_words(wanted.trigger_words),
            *_judge_licence(wanted.licence),
        ]
        facts: dict[Side, FileFacts] = {}
        for side in SIDES:
            try:
                facts[side] = self._read_facts(files[side])
            except ValueError as error:
                message = f"the file {error}; upload a safetensors file"
                wrong.append(FieldProblem(pointer=f"#/{side}", code="malformed", message=message))
        pair, problems = judge_pair(facts, self._profile.expert_configs, rank_max=self._rank_max)
        if wrong := [*wrong, *problems]:
            raise InvalidRequest(wrong)
        return facts, pair

    def _refuse_conflict(self, tenant_id: int | None, name: str) -> None:
        """Refuse before the files are stored, which takes long; the insert refuses exactly."""
        mine = [lora for lora in self.all(tenant_id) if lora.tenant_id == tenant_id]
        if any(lora.name == name for lora in mine):
            raise _taken(name)
        if len(mine) >= LORAS_MAX:
            raise LoraConflict(f"there are {len(mine)} LoRAs, the limit is {LORAS_MAX}; delete one")

    def _store(self, facts: Mapping[Side, FileFacts], files: Mapping[Side, Path]) -> None:
        for side in SIDES:
            key = blob_key(facts[side].sha256)
            if self._blobs.head(key) is None:
                self._blobs.put_file(key, files[side], content_type="application/octet-stream")

    def _write(self, write: Callable[[UnitOfWork], T]) -> T:
        try:
            return self._db.write(write)
        finally:
            with self._lock:
                self._remembered.clear()


def _found(conn: Connection, tenant_id: int | None, name: str) -> Lora:
    lora = loras.find(conn, tenant_id, name)
    if lora is None:
        raise LoraNotFound(f"there is no LoRA {name[:64]!r}; GET /v1/t2v/loras lists yours")
    return lora


def _own(conn: Connection, tenant_id: int | None, name: str) -> Lora:
    lora = _found(conn, tenant_id, name)
    if lora.tenant_id != tenant_id:
        raise LoraNotFound(f"the LoRA {name!r} is shared by all; only the operator changes it")
    return lora


def _taken(name: str) -> LoraConflict:
    return LoraConflict(f"there is a LoRA {name!r} already; delete it, or take another name")


def _judge_licence(licence: str) -> list[FieldProblem]:
    if 1 <= len(licence.strip()) <= len(licence) <= LICENCE_MAX_CHARS and licence.isprintable():
        return []
    message = (
        f"it must be 1 to {LICENCE_MAX_CHARS} printable characters; say by what right the style is"
        " used, such as 'CC-BY-4.0' or 'own work'"
    )
    return [FieldProblem(pointer="#/licence", code="not_a_name", message=message)]
