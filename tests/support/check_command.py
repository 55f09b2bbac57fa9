"""Calls `scaleobs check`, and holds its findings."""

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
        """Return the texts of findings by subject."""
        return self._by_subject("findings")

    def notes(self) -> dict[str, str]:
        return self._by_subject("notes")

    def used_by(self, words: str) -> list[str]:
        """Return the rules and panels that findings with these words affect."""
        return [name for one in self.content["findings"] if words in one["what"] for name in one["used_by"]]

    def _by_subject(self, kind):
        texts: dict[str, str] = {}
        for one in self.content[kind]:
            for subject in one["subjects"]:
                texts[subject] = " | ".join(filter(None, [texts.get(subject), one["what"]]))
        return texts


def call(*arguments):
    """Run the command inside this process."""
    return CliRunner().invoke(scaleobs, ["check", *map(str, arguments)], prog_name="scaleobs")


def check(url, *arguments) -> Checked:
    """Return the findings of the command."""
    result = call(url, "--json", *arguments)
    assert result.exit_code in {0, 1}, result.output
    return Checked(result.exit_code, json.loads(result.stdout))
