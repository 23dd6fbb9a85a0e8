"""Where the server is: arguments, then the environment, then the file `vidmill up` writes."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from vidmill.client._errors import ConnectionNotFound

FILE_NAME = "connection.json"
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


@dataclass(frozen=True, kw_only=True)
class Connection:
    """A server's address and the key for it.

    Attributes:
        url_source: Where `url` came from, in words for people.
        file: The connection file it came from; read again when the server cannot be reached,
            because a restarted one may have moved to another port.
    """

    url: str
    api_key: str = field(repr=False)
    url_source: str
    api_key_source: str
    file: Path | None = None

    @property
    def is_local(self) -> bool:
        return urlsplit(self.url).hostname in _LOOPBACK

    def refreshed(self) -> "Connection":
        """Return what the file says now, or this connection if it says nothing (new)."""
        try:
            found = _read(self.file) if self.file else None
        except ConnectionNotFound:
            return self
        if found is None:
            return self
        is_own_key = self.api_key_source == self.url_source
        return found if is_own_key else replace(self, url=found.url)


def find_connection(
    url: str | None = None,
    api_key: str | None = None,
    *,
    environ: Mapping[str, str] | None = None,
) -> Connection:
    """Return the first connection found: arguments, `VIDMILL_URL`, then the connection files.

    Raises:
        ConnectionNotFound: Nothing is configured; the message names every place looked at.
    """
    environ = os.environ if environ is None else environ
    files = connection_files(environ)
    url_here, url_source = (url, "argument") if url else (environ.get("VIDMILL_URL"), "VIDMILL_URL")
    if not url_here:
        found = _from_files(files)
        if not api_key:
            return found
        return replace(found, api_key=api_key, api_key_source="argument")
    key, key_source = _key_for(url_here, api_key, environ=environ, files=files)
    return Connection(
        url=url_here.rstrip("/"), api_key=key, url_source=url_source, api_key_source=key_source
    )


def connection_files(environ: Mapping[str, str]) -> list[Path]:
    """Return the places of the connection file, in the order they are looked at."""
    data_home = environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    folders = [environ.get("VIDMILL_DATA_DIR"), str(Path(data_home) / "vidmill")]
    return [Path(folder) / FILE_NAME for folder in folders if folder]


def _from_files(files: list[Path]) -> Connection:
    for path in files:
        if found := _read(path):
            return found
    places = "\n".join(f"  - {path}" for path in files)
    raise ConnectionNotFound(
        "no Vidmill server is configured. Looked at:\n"
        "  - the url argument (--url on the command line)\n"
        f"  - VIDMILL_URL in the environment\n{places}\n"
        "Start one on this machine with `vidmill up`, or set VIDMILL_URL and VIDMILL_API_KEY."
    )


def _key_for(
    url: str, api_key: str | None, *, environ: Mapping[str, str], files: list[Path]
) -> tuple[str, str]:
    if api_key:
        return api_key, "argument"
    if key := environ.get("VIDMILL_API_KEY"):
        return key, "VIDMILL_API_KEY"
    for path in files:
        found = _read(path)
        if found and found.url == url.rstrip("/"):
            return found.api_key, str(path)
    return "", "nowhere"


def _read(path: Path) -> Connection | None:
    try:
        data = json.loads(path.read_text("utf-8"))
        url, key = str(data["url"]).rstrip("/"), str(data["api_key"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConnectionNotFound(
            f"{path} cannot be used ({error}); delete it and start `vidmill up` again"
        ) from error
    return Connection(
        url=url, api_key=key, url_source=str(path), api_key_source=str(path), file=path
    )
