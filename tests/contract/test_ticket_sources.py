"""What every ticket source keeps, over the whole table. A broker joins by a line in `SOURCES`."""

import select
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vidmill.domain.ports import Inbox, TicketSource
from vidmill.queueing import TICKET_SOURCES, open_tickets

SOURCES: dict[str, Callable[[Path], str]] = {
    "local": lambda folder: f"local://{folder / ('deep ' * 30) / 'run'}"
}
"""How a test gets a URL of each scheme; the local one is longer than a socket's 108 bytes."""


@pytest.fixture(params=sorted(TICKET_SOURCES))
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return SOURCES[request.param](tmp_path)


@pytest.fixture
def source(url: str) -> Iterator[TicketSource]:
    tickets = open_tickets(url)
    yield tickets
    tickets.close()


def comes(inbox: Inbox[str], timeout_s: float = 2.0) -> bool:
    return bool(select.select([inbox], [], [], timeout_s)[0])


def test_ticket_wakes_a_worker_that_selects(source: TicketSource) -> None:
    inbox = source.listen("gpu", "w1")
    source.publish("gpu")
    assert comes(inbox)
    assert inbox.take() == ["gpu"]
    inbox.close()


def test_ticket_from_another_process_s_source_arrives(source: TicketSource, url: str) -> None:
    inbox, other = source.listen("gpu", "w1"), open_tickets(url)
    other.publish("gpu")
    assert comes(inbox)
    other.close()
    inbox.close()


def test_ticket_of_another_pool_wakes_nobody(source: TicketSource) -> None:
    inbox = source.listen("gpu", "w1")
    source.publish("cpu")
    source.publish("gpu2")
    assert not comes(inbox, 0.05)
    inbox.close()


def test_taken_tickets_are_gone(source: TicketSource) -> None:
    inbox = source.listen("gpu", "w1")
    for _ in range(3):
        source.publish("gpu")
    assert inbox.take() == ["gpu"] * 3
    assert inbox.take() == []
    assert not comes(inbox, 0.05)
    inbox.close()


def test_publishing_without_a_worker_is_quiet(source: TicketSource) -> None:
    source.publish("gpu")


def test_publishing_to_a_worker_that_never_reads_does_not_block(source: TicketSource) -> None:
    inbox = source.listen("gpu", "w1")
    for _ in range(2000):
        source.publish("gpu")
    assert "gpu" in inbox.take()
    inbox.close()


def test_closed_inbox_gets_no_more(source: TicketSource) -> None:
    gone, here = source.listen("gpu", "w1"), source.listen("gpu", "w2")
    gone.close()
    source.publish("gpu")
    assert here.take() == ["gpu"]
    here.close()


def test_unknown_scheme_is_refused_with_the_known_ones() -> None:
    with pytest.raises(LookupError, match="local"):
        open_tickets("carrier-pigeon://loft")
