"""What no engine of a profile makes, however good its weights are. No torch."""

from vidmill.domain.clip import ClipSpec
from vidmill.domain.errors import SpecUnsupported
from vidmill.domain.profile import ModelProfile


def refuse_unsupported(profile: ModelProfile, spec: ClipSpec) -> None:
    """Raise `SpecUnsupported`, with every reason, where *profile* cannot make *spec*."""
    refusals = {
        f"profile {spec.profile!r}, loaded is {profile.name!r}": spec.profile != profile.name,
        f"size {spec.native}": spec.native not in profile.native_sizes,
        f"{spec.num_frames} frames, not {profile.frame_stride}k+1": spec.num_frames < 1
        or spec.num_frames % profile.frame_stride != 1,
        f"{spec.steps} steps": spec.steps < 1,
        "a LoRA, which is not on the server": profile.remote is not None and spec.lora is not None,
        "guidance for the low-noise expert only": spec.guidance_scale <= 1
        and spec.guidance_scale_2 > 1,
    }
    reasons = [reason for reason, is_wrong in refusals.items() if is_wrong]
    if reasons:
        sizes = ", ".join(sorted({str(size) for size in profile.native_sizes}))
        raise SpecUnsupported(
            f"{profile.name} cannot make {'; '.join(reasons)}. It makes {sizes} with"
            f" {profile.frame_stride}k+1 frames"
        )
