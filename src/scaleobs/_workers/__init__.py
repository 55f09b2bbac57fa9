"""The workers of one service: which processes belong together, and the files in which they count."""

from __future__ import annotations

from scaleobs._workers.group import Group, Slots, join_group, leave_group
from scaleobs._workers.ledger import Ledger
from scaleobs._workers.recognition import Root, find_root, next_user
from scaleobs._workers.sibling import Sibling
from scaleobs._workers.uwsgi import after_fork_of_uwsgi

__all__ = [
    "Group",
    "Ledger",
    "Root",
    "Sibling",
    "Slots",
    "after_fork_of_uwsgi",
    "find_root",
    "join_group",
    "leave_group",
    "next_user",
]
