"""Names of this server, as they stand in the Host header of a request."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterable

HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]/\s]+))(?::[0-9]+)?")
"""An IPv6 address in brackets, or anything else, and perhaps a port."""
SCHEME = re.compile(r"https?://", re.IGNORECASE)


def own_hosts(further: Iterable[str] = ()) -> set[str]:
    """Return the names that this server answers to: this machine's, a Space's, and ``further`` ones.

    Raises
    ------
    ValueError
        If a further one can be no host's.
    """
    names = {"localhost", socket.gethostname(), os.environ.get("SPACE_HOST", "")}
    return {name.lower().rstrip(".") for name in names if name} | set(map(host_name, further))


def host_name(given: str) -> str:
    """Return the name in what somebody gives as one: with a scheme or a port, as in an address, or without.

    Raises
    ------
    ValueError
        If there is none.
    """
    name = name_of(SCHEME.sub("", given.strip(), count=1).rstrip("/"))
    if not name:
        raise ValueError(f"{given!r} is no host's name: give one like voice.example.org")
    return name


def name_of(host: str) -> str:
    """Return the name or address in a host and perhaps a port; "" if it is malformed."""
    found = HOST.fullmatch(host)
    return "" if found is None else (found[1] or found[2]).lower().rstrip(".")
