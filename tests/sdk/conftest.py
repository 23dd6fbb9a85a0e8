"""A dialect on a real port, and interpreters that hold one version of an SDK each.

The bench is that of the OpenAI dialect; the tests of DashScope's have their own.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.desks import Bench, make_bench
from tests.sdk.installed import Player
from tests.sdk.openai_surfaces import CLIENTS, NEWEST, Sdk
from tests.servers import Server


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = make_bench(
        tmp_path,
        public_url="",
        model_aliases=("sora-2",),
        webhook_http=True,
        webhook_allow=("127.0.0.1",),
    )
    yield made
    made.close()


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


@pytest.fixture(params=CLIENTS, ids="-".join)
def sdk(
    request: pytest.FixtureRequest, server: Server, player_of: Callable[[str, str], Player]
) -> Sdk:
    version, colour = request.param
    return Sdk(
        player=player_of("openai", version),
        version=version,
        is_async=colour == "async",
        url=server.url,
    )


@pytest.fixture(params=["sync", "async"])
def newest(
    request: pytest.FixtureRequest, server: Server, player_of: Callable[[str, str], Player]
) -> Sdk:
    is_async = request.param == "async"
    return Sdk(
        player=player_of("openai", NEWEST), version=NEWEST, is_async=is_async, url=server.url
    )
