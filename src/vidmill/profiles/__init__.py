"""Model profiles, one TOML file each, and where a profile's weights are looked for. No torch."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vidmill.domain.profile import DEFAULT_REVISION, ModelProfile

_SHIPPED = Path(__file__).parent
_MODELS = _SHIPPED.parent / "models"
_PACKAGE_SCHEME = "package:"


def load_profile(name: str) -> ModelProfile:
    """Return the profile called *name*, or the one in the file *name* if it ends in `.toml`.

    A profile from a file is called after the file's stem. Where a file is silent, the one that its
    `base` names speaks (a shipped profile, or a `.toml` path counted from the file's own folder);
    tables are merged key by key, lists are replaced.

    Raises:
        LookupError: There is no such profile or file; the message lists the shipped ones.
        ValueError: The file is not a profile; the message names the file and what is wrong.
    """
    path = _find(name, beside=Path())
    try:
        return ModelProfile.from_toml(path.stem, _read(path, ()))
    except (TypeError, LookupError, ValueError) as error:
        raise ValueError(f"{path} is not a model profile: {error}") from error


def all_profiles() -> list[ModelProfile]:
    """Return every shipped profile, by name."""
    return [load_profile(file.stem) for file in sorted(_SHIPPED.glob("*.toml"))]


def _find(name: str, *, beside: Path) -> Path:
    path = beside / name if name.endswith(".toml") else _SHIPPED / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in _SHIPPED.glob("*.toml")))
        raise LookupError(
            f"no model profile {name!r}; choose one of: {known}, or give the path of a .toml file"
        )
    return path


def _read(path: Path, derived: tuple[Path, ...]) -> dict[str, Any]:
    """Return the table in *path* over that of its base; *derived* are the files that led here."""
    if path in derived:
        raise ValueError(f"{path.name} is its own base")
    table = tomllib.loads(path.read_text("utf-8"))
    base = table.pop("base", None)
    if base is None:
        return table
    return _merge(_read(_find(base, beside=path.parent), (*derived, path)), table)


def _merge(base: Mapping[str, Any], table: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in table.items():
        is_table = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if is_table else value
    return merged


def resolve_source(profile: ModelProfile, model_path: str = "") -> str:
    """Return where the weights are: an absolute folder, or a hub id such as `Wan-AI/…-Diffusers`.

    Args:
        profile: Its `source` is used unless overridden.
        model_path: A folder or hub id that overrides it; empty = none.
    """
    source = model_path or profile.source
    if source.startswith(_PACKAGE_SCHEME):
        return str(_MODELS / source.removeprefix(_PACKAGE_SCHEME))
    folder = Path(source).expanduser()
    return str(folder.absolute()) if folder.exists() or folder.is_absolute() else source


def revision_of(profile: ModelProfile, source: str) -> str:
    """Return the revision to take of *source*: one is pinned for the profile's own alone."""
    return profile.revision if source == resolve_source(profile) else DEFAULT_REVISION
