"""Objects over a socket between two processes of ours, with a time limit in both directions.

A message is a head and the pickled object: behind the head in the stream, or, where it is large and the system can, in
memory that both processes see, whose handle comes with the head. A stream would pass 100 MB through a buffer of 200 kB,
and every time it is full the two processes would wait for each other. Both ends run the same code of the same user.
"""

from __future__ import annotations

import mmap
import os
import pickle
import socket
import struct
import time
from typing import Any

_HEAD = struct.Struct("!?Q")
LARGE = 1 << 18
"""From so many bytes on an object goes through shared memory."""


def send(line: socket.socket, value: object, deadline_s: float | None = None) -> None:
    """Send one object.

    Args:
        line: a Unix socket.
        value: anything that can be pickled.
        deadline_s: when to give up, on `time.monotonic`; None: never.

    Raises:
        TimeoutError: the other end does not read.
        OSError: the other end is gone.
    """
    payload = pickle.dumps(value, protocol=5)
    line.settimeout(_left_s(deadline_s))
    if len(payload) < LARGE or not hasattr(os, "memfd_create"):
        line.sendall(_HEAD.pack(False, len(payload)))
        line.settimeout(_left_s(deadline_s))
        line.sendall(payload)
        return
    memory = os.memfd_create("nasc")
    try:
        left = memoryview(payload)
        while left:
            left = left[os.write(memory, left) :]
        socket.send_fds(line, [_HEAD.pack(True, len(payload))], [memory])
    finally:
        os.close(memory)


def receive(line: socket.socket, deadline_s: float | None = None) -> Any:
    """The next object.

    Args:
        line: a Unix socket.
        deadline_s: when to give up, on `time.monotonic`; None: never.

    Raises:
        TimeoutError: nothing came in time.
        EOFError: the other end is gone.
        OSError: the line is broken.
    """
    line.settimeout(_left_s(deadline_s))
    head, handles, _, _ = socket.recv_fds(line, _HEAD.size, 1)
    try:
        if not head:
            raise EOFError("the other end is gone")
        head += _exactly(line, _HEAD.size - len(head), deadline_s)
        shared, length = _HEAD.unpack(head)
        if not shared:
            return pickle.loads(_exactly(line, length, deadline_s))
        with mmap.mmap(handles[0], length, access=mmap.ACCESS_READ) as memory:
            return pickle.loads(memory)
    finally:
        for handle in handles:
            os.close(handle)


def _exactly(line: socket.socket, length: int, deadline_s: float | None) -> bytearray:
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
