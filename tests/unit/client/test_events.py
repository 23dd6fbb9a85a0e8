"""Server-sent events from bytes that arrive in any pieces."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from vidmill.client._events import Event, EventDecoder

STREAM = (
    'retry: 2000\nid: 1.5\nevent: t2v.task.progress\ndata: {"a": "蓝"}\n\n'
    ": heartbeat\n\n"
    "id: 1.6\r\nevent: t2v.task.completed\r\ndata: one\r\ndata: two\r\n\r\n"
)
EVENTS = [
    Event("t2v.task.progress", '{"a": "蓝"}', "1.5"),
    Event("t2v.task.completed", "one\ntwo", "1.6"),
]


def test_comments_and_retry_alone_are_no_events() -> None:
    assert EventDecoder().feed(STREAM.encode()) == EVENTS


@given(st.lists(st.integers(0, len(STREAM.encode())), max_size=12))
def test_pieces_may_be_cut_anywhere_even_inside_a_character(cuts: list[int]) -> None:
    data = STREAM.encode()
    edges = [0, *sorted(cuts), len(data)]
    decoder = EventDecoder()
    pieces = [data[a:b] for a, b in pairwise(edges)]
    assert [event for piece in pieces for event in decoder.feed(piece)] == EVENTS


def test_last_id_outlives_events_without_one() -> None:
    decoder = EventDecoder()
    decoder.feed(b"id: 7\ndata: x\n\n")
    assert decoder.feed(b"data: y\n\n") == [Event("message", "y", "7")]
    assert decoder.last_id == "7"


def test_unfinished_event_is_not_told() -> None:
    assert EventDecoder().feed(b"data: half\n") == []


def test_half_an_event_that_was_cut_off_counts_as_not_heard() -> None:
    decoder = EventDecoder("1")
    decoder.feed(b"id: 2\ndata: half")
    assert decoder.last_id == "1"
    decoder.restart()
    assert decoder.feed(b"data: whole\n\n") == [Event("message", "whole", "1")]
