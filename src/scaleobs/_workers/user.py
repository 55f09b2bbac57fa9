"""The user of a worker, which may change: servers and applications that start as root give up its rights."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def acting_as(user: tuple[int, int] | None) -> Iterator[None]:
    """
    Use the rights of another user and group, and no others, until the block ends; files are created as theirs.

    A change of the owner afterwards would not be safe: another user may have replaced a file by a link meanwhile.

    Args:
        user: numbers of the user and the group; `None` changes nothing.

    Raises:
        OSError: this process may not become that user.
    """
    before = os.geteuid(), os.getegid()
    if user is None or user == before:
        yield
        return
    os.setegid(user[1])
    try:
        os.seteuid(user[0])
        try:
            yield
        finally:
            os.seteuid(before[0])
    finally:
        os.setegid(before[1])
