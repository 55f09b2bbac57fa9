"""Many processes, one service: who belongs together, where they meet, and the file in which each of them counts."""

from __future__ import annotations

from scaleobs.group.ledger import Ledger
from scaleobs.group.membership import Group, Slots, join, leave
from scaleobs.group.recognition import Root, root
from scaleobs.group.sibling import Sibling

__all__ = ["Group", "Ledger", "Root", "Sibling", "Slots", "join", "leave", "root"]
