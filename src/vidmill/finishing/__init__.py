"""From native frames to files a caller can keep: retime, scale, encode, stills, checksums."""

from vidmill.finishing.pipeline import Encoding, FinishedClip, FinishedFile, finish_clip
from vidmill.finishing.reel import Reel, finish_reel
from vidmill.finishing.store import store_clip

__all__ = [
    "Encoding",
    "FinishedClip",
    "FinishedFile",
    "Reel",
    "finish_clip",
    "finish_reel",
    "store_clip",
]
