"""The `scaleobs` command inside this process."""

from click.testing import CliRunner

from scaleobs._cli.commands import scaleobs


def call(*arguments):
    """Run the command inside this process."""
    return CliRunner().invoke(scaleobs, [str(argument) for argument in arguments], prog_name="scaleobs")
