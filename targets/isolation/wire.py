"""Objects over a socket between two processes of ours, with a time limit in both directions.

A message is its length in eight bytes and the pickled object. Both ends run the same code of the same user.
"""

from __future__ import annotations

import pickle
import struct
import time
from socket import socket
from typing import Any

_LENGTH = struct.Struct("!Q")


def send(line: socket, value: object, deadline_s: float | None = None) -> None:
    """Send one object.

    Args:
        line: a stream.
        value: anything that can be pickled.
        deadline_s: when to give up, on `time.monotonic`; None: never.

    Raises:
        TimeoutError: the other end does not read.
        OSError: the other end is gone.
    """
    payload = pickle.dumps(value, protocol=5)
    for part in (_LENGTH.pack(len(payload)), payload):
        line.settimeout(_left_s(deadline_s))
        line.sendall(part)


def receive(line: socket, deadline_s: float | None = None) -> Any:
    """The next object.

    Args:
        line: a stream.
        deadline_s: when to give up, on `time.monotonic`; None: never.

    Raises:
        TimeoutError: nothing came in time.
        EOFError: the other end is gone.
        OSError: the line is broken.
    """
    (length,) = _LENGTH.unpack(_exactly(line, _LENGTH.size, deadline_s))
    return pickle.loads(_exactly(line, length, deadline_s))


def _exactly(line: socket, length: int, deadline_s: float | None) -> bytearray:
    found = bytearray(length)
    view, have = memoryview(found), 0
    while have < length:
        line.settimeout(_left_s(deadline_s))
        got = line.recv_into(view[have:])
        if not got:
            raise EOFError("the other end is gone")
        have += got
    return found


def _left_s(deadline_s: float | None) -> float | None:
    """What is left until a deadline; a millisecond at least, since 0 means not to wait at all."""
    return None if deadline_s is None else max(1e-3, deadline_s - time.monotonic())
