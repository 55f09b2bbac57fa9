"""Many processes, one service: who belongs together, where they meet, and the file in which each of them counts."""

from __future__ import annotations

from scaleobs.group.ledger import FullError, Ledger
from scaleobs.group.membership import Group, join, leave
from scaleobs.group.recognition import Root, root
from scaleobs.group.sibling import Sibling

__all__ = ["FullError", "Group", "Ledger", "Root", "Sibling", "join", "leave", "root"]
