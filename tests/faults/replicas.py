"""Processes that do what a replica or a controller never would, for the sake of the rest."""

import dataclasses
import os
import random
import signal
from collections.abc import Sequence

import uvicorn

from vidmill import wiring
from vidmill.api.app import create_app
from vidmill.domain.ports import TicketInbox
from vidmill.settings import Settings
from vidmill.stack import new_controller


class DeadlyTickets:
    """Kills the process in the moment between the commit and the ticket."""

    def publish(self, pool: str) -> None:  # noqa: ARG002  the signature of every source
        os.kill(os.getpid(), signal.SIGKILL)

    def listen(self, pools: Sequence[str], worker: str) -> TicketInbox:
        raise AssertionError(f"{worker} listens to {pools}; these tickets only go out")

    def close(self) -> None:
        pass


def run_mortal(settings: Settings) -> None:
    """Serve the API until the first clip is accepted."""
    app = wiring.build(settings)
    mortal = dataclasses.replace(app, tickets=DeadlyTickets())
    uvicorn.run(create_app(mortal), host="127.0.0.1", port=settings.port, log_level="warning")


def run_usurper(settings: Settings) -> None:
    """Do all that a leading controller does, without asking who leads, without a pause."""
    app = wiring.build(settings)
    controller = new_controller(app)
    steps = (controller.sweep, controller.promote, controller.reconcile, controller.audit)
    while True:
        random.choice(steps)()
