"""`scaleobs check` as a person calls it, and what it said."""

from __future__ import annotations

import json
from dataclasses import dataclass

from click.testing import CliRunner

from scaleobs._cli.commands import scaleobs


@dataclass(frozen=True)
class Checked:
    code: int
    content: dict

    def findings(self) -> dict[str, str]:
        """Return what was found, by each subject."""
        return self._by_subject("findings")

    def notes(self) -> dict[str, str]:
        return self._by_subject("notes")

    def used_by(self, what: str) -> list[str]:
        """Return who uses what findings with these words are about."""
        return [who for one in self.content["findings"] if what in one["what"] for who in one["used_by"]]

    def _by_subject(self, kind):
        said: dict[str, str] = {}
        for one in self.content[kind]:
            for subject in one["subjects"]:
                said[subject] = " | ".join(filter(None, [said.get(subject), one["what"]]))
        return said


def call(*arguments):
    """Run the command inside this process."""
    return CliRunner().invoke(scaleobs, ["check", *map(str, arguments)], prog_name="scaleobs")


def check(url, *arguments) -> Checked:
    """Return what the command says in JSON."""
    result = call(url, "--json", *arguments)
    assert result.exit_code in {0, 1}, result.output
    return Checked(result.exit_code, json.loads(result.stdout))
