import os

import pytest

from vidmill.worker.channel import Channel, StopWord, pair


def test_message_and_descriptor_arrive_together() -> None:
    ours, end = pair()
    theirs = Channel(end)
    reader, writer = os.pipe()
    ours.send({"say": "こんにちは", "run": 7}, fd=writer)
    message, received = theirs.receive()
    assert message == {"say": "こんにちは", "run": 7}
    assert received is not None
    assert not os.get_inheritable(received)
    os.write(received, b"through")
    assert os.read(reader, 10) == b"through"
    for descriptor in (reader, writer, received):
        os.close(descriptor)


def test_messages_keep_their_bounds() -> None:
    ours, end = pair()
    theirs = Channel(end)
    for number in range(3):
        ours.send({"number": number, "text": "x" * 50_000})
    assert [theirs.receive()[0]["number"] for _ in range(3)] == [0, 1, 2]


def test_nothing_there_is_not_waited_for() -> None:
    ours, _end = pair()
    with pytest.raises(BlockingIOError):
        ours.receive(is_waiting=False)


def test_last_words_are_heard_before_the_end() -> None:
    ours, end = pair()
    theirs = Channel(end)
    theirs.send({"say": "frames"})
    theirs.close()
    assert ours.receive()[0] == {"say": "frames"}
    with pytest.raises(EOFError):
        ours.receive()


def test_progress_to_a_supervisor_that_does_not_read_is_dropped() -> None:
    ours, _end = pair()
    for _ in range(10_000):
        ours.send_if_room({"say": "progress", "text": "x" * 1000})


def test_stop_is_for_one_run_and_crosses_processes() -> None:
    ours = StopWord.create()
    child = StopWord(os.dup(ours.descriptor))
    assert not child.is_asked(1)
    ours.ask(2)
    assert not child.is_asked(1)
    assert child.is_asked(2)
    assert not child.is_asked(3)
    ours.close()
    child.close()
