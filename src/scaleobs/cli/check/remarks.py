"""What there is to say: findings, which somebody has to act on, and notes."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field

FINDING, NOTE = "finding", "note"


@dataclass(slots=True)
class Remark:
    """Something to say about series, rules or targets, and whose questions it touches."""

    level: str
    what: str
    subjects: list[str]
    used_by: list[str]

    def data(self) -> dict[str, object]:
        """Return it for JSON."""
        return {"what": self.what, "subjects": self.subjects, "used_by": self.used_by}


@dataclass(slots=True)
class Remarks:
    """All of them in the order in which they came up, those that say the same as one."""

    said: dict[tuple[str, str], Remark] = field(default_factory=dict)

    def add(self, level: str, subject: str, what: str, used_by: Iterable[str] = ()) -> None:
        """Say something, of one more subject where it was said before."""
        remark = self.said.setdefault((level, what), Remark(level, what, [], []))
        for into, more in ((remark.subjects, [subject]), (remark.used_by, used_by)):
            into.extend(one for one in more if one and one not in into)

    def of(self, level: str) -> list[Remark]:
        """Return the findings or the notes."""
        return [remark for remark in self.said.values() if remark.level == level]


def listed(names: Iterable[str], most: int = 5) -> str:
    """Return the first of some names, sorted, and how many there are besides."""
    names = sorted(set(names))
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}" if names else "none"


def meant(name: str, known: Iterable[str]) -> str:
    """Return a question after the name that was likely meant, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {close[0]}?" if close else ""
