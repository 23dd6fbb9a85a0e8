"""Vidmill: a video factory around Wan2.2-T2V-A14B. The SDK lives in `vidmill.client`."""

__version__ = "0.1.0"
