"""Many processes, one service: who belongs together, where they meet, and the file in which each of them counts."""

from __future__ import annotations

from scaleobs._workers.group import Group, Slots, join, leave
from scaleobs._workers.ledger import Ledger
from scaleobs._workers.recognition import Root, root
from scaleobs._workers.sibling import Sibling

__all__ = ["Group", "Ledger", "Root", "Sibling", "Slots", "join", "leave", "root"]
