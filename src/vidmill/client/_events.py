"""Server-sent events (WHATWG HTML, "Server-sent events") from bytes that arrive in any pieces."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Event:
    """One event. `id` is what `Last-Event-ID` resumes after."""

    type: str
    data: str
    id: str


@dataclass
class EventDecoder:
    """Turns pieces of a stream into events; keeps what is incomplete for the next piece.

    Attributes:
        last_id: Of the last whole event: half a one, cut off, was not heard.
    """

    last_id: str = ""
    _id: str = field(default="", init=False)
    _rest: bytes = b""
    _type: str = ""
    _data: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._id = self.last_id

    def feed(self, piece: bytes) -> list[Event]:
        # A piece may end between CR and LF: hold a trailing CR back until its partner shows.
        *lines, self._rest = (self._rest + piece).replace(b"\r\n", b"\n").split(b"\n")
        events = (self._line(line.decode("utf-8", "replace").rstrip("\r")) for line in lines)
        return [event for event in events if event]

    def restart(self) -> None:
        """Drop what is incomplete: another connection begins with a whole event."""
        self._rest, self._type, self._data, self._id = b"", "", [], self.last_id

    def _line(self, line: str) -> Event | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._type = value
        elif name == "id" and "\0" not in value:
            self._id = value
        return None

    def _dispatch(self) -> Event | None:
        data, kind = self._data, self._type or "message"
        self._data, self._type, self.last_id = [], "", self._id
        return Event(kind, "\n".join(data), self.last_id) if data else None
