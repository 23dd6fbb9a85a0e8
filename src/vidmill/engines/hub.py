"""Where the folder of a source lies: given, in the hub's cache, or downloaded. No torch."""

import os
from collections.abc import Sequence
from pathlib import Path

from vidmill.domain.errors import ModelInvalid


def local_folder(source: str, revision: str) -> Path | None:
    """Return the folder of *source* without any network, or None if it is not on this machine.

    A hub id is looked up by the cache's layout (`models--ORG--NAME/refs`, `snapshots`), because a
    machine that only lists models has no hub client.
    """
    folder = Path(source)
    if folder.is_absolute():
        return folder if folder.is_dir() else None
    repo = _hub_cache() / f"models--{source.replace('/', '--')}"
    ref = repo / "refs" / revision
    commit = ref.read_text("utf-8").strip() if ref.is_file() else revision
    snapshot = repo / "snapshots" / commit
    return snapshot if snapshot.is_dir() else None


def fetch_folder(source: str, revision: str, *, only: Sequence[str] = ()) -> Path:
    """Return the folder of *source*, downloading a hub id that is not complete in the cache.

    Of a hub id only the files *only* are needed, or, if there are none, all of a model.

    Raises:
        ModelInvalid: There is no such folder, or the hub cannot be reached.
    """
    if Path(source).is_absolute():
        folder = local_folder(source, revision)
        if folder is None:
            raise ModelInvalid(f"there is no model folder {source}; set VIDMILL_MODEL_PATH")
        return folder
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                source,
                revision=revision,
                allow_patterns=list(only) or None,
                ignore_patterns=["assets/*", "examples/*"],
            )
        )
    except (OSError, ValueError) as error:
        raise ModelInvalid(
            f"{source} is neither a folder nor a model that the hub gives: {error}"
        ) from error


def _hub_cache() -> Path:
    home = os.environ.get("HF_HOME") or "~/.cache/huggingface"
    return Path(os.environ.get("HF_HUB_CACHE") or f"{home}/hub").expanduser()
