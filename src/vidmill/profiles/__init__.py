"""Model profiles, one TOML file each, and where a profile's weights are looked for. No torch."""

import tomllib
from pathlib import Path

from vidmill.domain.profile import ModelProfile

_SHIPPED = Path(__file__).parent
_MODELS = _SHIPPED.parent / "models"
_PACKAGE_SCHEME = "package:"


def load_profile(name: str) -> ModelProfile:
    """Return the profile called *name*, or the one in the file *name* if it ends in `.toml`.

    A profile from a file is called after the file's stem.

    Raises:
        LookupError: There is no such profile or file; the message lists the shipped ones.
        ValueError: The file is not a profile; the message names the file and what is wrong.
    """
    path = Path(name) if name.endswith(".toml") else _SHIPPED / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in _SHIPPED.glob("*.toml")))
        raise LookupError(
            f"no model profile {name!r}; choose one of: {known}, or give the path of a .toml file"
        )
    try:
        return ModelProfile.from_toml(path.stem, tomllib.loads(path.read_text("utf-8")))
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(f"{path} is not a model profile: {error}") from error


def all_profiles() -> list[ModelProfile]:
    """Return every shipped profile, by name."""
    return [load_profile(file.stem) for file in sorted(_SHIPPED.glob("*.toml"))]


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
