"""Processes made of the parts: `vidmill up`, all of it on one machine, and `vidmill serve`."""

from vidmill.stack.front import new_controller
from vidmill.stack.keys import Connection, connect
from vidmill.stack.serve import run_serve
from vidmill.stack.up import Callbacks, run_up, settings_json
from vidmill.wiring import CannotStart

__all__ = [
    "Callbacks",
    "CannotStart",
    "Connection",
    "connect",
    "new_controller",
    "run_serve",
    "run_up",
    "settings_json",
]
