"""What all dialects serve alike: names of the model, sizes on offer, and files."""

from collections.abc import Mapping, Sequence

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from vidmill.api.desk import Desk
from vidmill.api.files import file_response
from vidmill.domain.clip import SIZE_NAMES, Aspect, Asset, Resolution
from vidmill.domain.errors import UnknownModel
from vidmill.domain.order import Limits, offered_resolutions
from vidmill.domain.profile import ModelProfile

FILE_TYPES = "video/mp4, image/jpeg, image/webp"
"""Of the files of a clip, for the reference."""

_HUB_SUFFIX = "-Diffusers"
"""Of hub ids in the form that is loaded; people also use the id of the original repository."""


def model_names(profile: ModelProfile, aliases: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the model's own name, those of its weights, and *aliases*, each once.

    A client that asks for the weights' name in small letters, as clients do, is served whichever
    profile runs them.
    """
    names = [profile.name]
    if "/" in profile.source:
        repo = profile.source.removesuffix(_HUB_SUFFIX)
        names += [profile.source, repo, repo.rpartition("/")[2].lower()]
    return tuple(dict.fromkeys([*names, *aliases]))


def check_model(name: str, known: Sequence[str]) -> None:
    """Go on if *name* is one of the *known*.

    Raises:
        UnknownModel: It is not.
    """
    if name not in known:
        raise UnknownModel(
            f"there is no model {name[:100]!r} here; ask for one of: {', '.join(known)} (the"
            " operator adds names by VIDMILL_MODEL_ALIASES)"
        )


def offered_sizes(limits: Limits, profile: ModelProfile) -> Mapping[str, tuple[Resolution, Aspect]]:
    """Return the delivered sizes on offer, by `WxH`."""
    resolutions, aspects = offered_resolutions(limits, profile), profile.aspects
    return {
        name: (resolution, aspect)
        for name, (resolution, aspect) in SIZE_NAMES.items()
        if resolution in resolutions and aspect in aspects
    }


def asset_response(desk: Desk, request: Request, asset: Asset, *, name: str) -> Response:
    """Answer with the file of *asset*, or with where its store serves it."""
    elsewhere = desk.links.foreign_url(asset, desk.links.expires_at())
    if elsewhere is not None:
        return RedirectResponse(elsewhere, status_code=302)
    return file_response(request, desk.app.blobs, asset.key, name=name)
