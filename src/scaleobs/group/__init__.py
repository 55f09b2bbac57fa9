"""Many processes, one service: who belongs together, where they meet, and the file in which each of them counts."""

from __future__ import annotations

from scaleobs.group.ledger import FullError, Ledger
from scaleobs.group.membership import Group, join, leave
from scaleobs.group.other import Other
from scaleobs.group.recognition import Root, root

__all__ = ["FullError", "Group", "Ledger", "Other", "Root", "join", "leave", "root"]
