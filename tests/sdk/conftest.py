"""A dialect on a real port, and interpreters that hold one version of an SDK each."""

from collections.abc import Callable, Iterator

import pytest

from tests.desks import Bench
from tests.sdk.installed import Player
from tests.servers import Server


@pytest.fixture
def server(bench: Bench) -> Iterator[Server]:
    """The API of the module's own bench."""
    made = Server(bench)
    yield made
    made.stop()


@pytest.fixture(scope="session")
def player_of() -> Iterator[Callable[[str, str], Player]]:
    """Gives the player of a package in a version; each is started once."""
    players: dict[tuple[str, str], Player] = {}

    def get(package: str, version: str) -> Player:
        if (package, version) not in players:
            players[package, version] = Player(package, version)
        return players[package, version]

    yield get
    for player in players.values():
        player.close()
