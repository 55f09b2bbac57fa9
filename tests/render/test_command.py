"""The command writes what it is asked for, and says in one sentence what it can't do."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from click.testing import CliRunner

from scaleobs.cli.commands import scaleobs
from scaleobs.objectives import Availability, Latency
from scaleobs.render.outputs import dashboard_texts, rules_text
from scaleobs.render.shipped import SHIPPED


def call(*arguments):
    """Run the command inside this process."""
    return CliRunner().invoke(scaleobs, [str(argument) for argument in arguments], prog_name="scaleobs")


def files_below(directory):
    """Return every file below a directory and its text."""
    return {
        str(path.relative_to(directory)): path.read_text(encoding="utf-8")
        for path in directory.rglob("*")
        if path.is_file()
    }


def test_rules_go_to_standard_output():
    """
    Without a file, the rules and nothing else are printed.
    """
    result = call("rules", "--service", "orders", "--slo", "availability=99.9", "--slo", "latency=99:0.25")

    assert 0 == result.exit_code
    assert rules_text("orders", objectives=[Availability(99.9), Latency(99, under=0.25)]) == result.stdout


def test_alerts_are_changed_and_left_out():
    """
    What the options say is what the function is given.
    """
    result = call("rules", "--set", "ServiceDown.for=10m", "--disable", "HighCPUUsage", "--window", "28")

    assert 0 == result.exit_code
    assert rules_text(changes=["ServiceDown.for=10m"], disabled=["HighCPUUsage"], window_days=28) == result.stdout


def test_rules_go_to_a_file(tmp_path):
    """
    With a file, nothing is printed, and nothing else is left beside it.
    """
    out = tmp_path / "rules.yaml"
    result = call("rules", "--format", "prometheusrule", "--time-scale", "300", "--job", "shop/orders", "--out", out)

    assert (0, "") == (result.exit_code, result.output)
    assert {"rules.yaml": rules_text(None, "shop/orders", (), 300, format_="prometheusrule")} == files_below(tmp_path)


def test_rules_go_through_a_link_and_into_a_pipe(tmp_path):
    """
    A link stays a link, and what is no regular file is written to, not replaced.
    """
    (tmp_path / "real.yaml").write_text("old", encoding="utf-8")
    (tmp_path / "link.yaml").symlink_to("real.yaml")
    result = call("rules", "--out", tmp_path / "link.yaml")
    piped = subprocess.run(
        [Path(sys.executable).parent / "scaleobs", "rules", "--out", "/dev/stdout"],
        capture_output=True,
        text=True,
        check=True,
    )

    assert 0 == result.exit_code
    assert (tmp_path / "link.yaml").is_symlink()
    assert rules_text() == (tmp_path / "real.yaml").read_text(encoding="utf-8")
    assert rules_text() == piped.stdout


def test_failed_write_loses_nothing(tmp_path, monkeypatch):
    """
    When the disk is full, the old file is still there and nothing beside it.
    """
    out = tmp_path / "rules.yaml"
    out.write_text("old", encoding="utf-8")

    def full(path, *_, **__):
        path.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    result = call("rules", "--out", out)

    assert 1 == result.exit_code
    assert f"Can't write '{out}': No space left on device." in result.stderr
    assert {"rules.yaml": "old"} == files_below(tmp_path)


def test_dashboards_go_below_a_directory(tmp_path):
    """
    The directory is made, and each file is named on standard error.
    """
    result = call("dashboards", "--service", "orders", "--out", tmp_path / "a" / "b")

    assert (0, "") == (result.exit_code, result.stdout)
    assert f"Wrote {tmp_path}/a/b/orders.json\n" == result.stderr
    assert dashboard_texts("orders") == files_below(tmp_path / "a" / "b")


def test_render_writes_every_shipped_file(tmp_path):
    """
    The table of shipped files is what comes out, no more and no less.
    """
    result = call("render", "--out", tmp_path)

    assert 0 == result.exit_code
    assert {name: render() for name, render in SHIPPED.items()} == files_below(tmp_path)


def test_version_is_the_distribution_s():
    """
    The command knows its version from what is installed.
    """
    assert f"scaleobs {version('scaleobs')}\n" == call("--version").output


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--slo", "availability=99.x"], "'availability=99.x' has something that is not a number"),
        (["--slo", "uptime=99"], "The objective 'uptime=99' is not known: write it like availability=99.9"),
        (["--slo", "availability=100"], "give a percentage above 0 and below 100"),
        (["--slo", "availability=90"], "The objective 'availability=90' is too loose for an alert"),
        (["--slo", "latency=99:0.3"], "give 0.25 or 0.5."),
        (["--slo", "availability=99", "--slo", "availability=98"], "Two objectives of one kind"),
        (["--format", "xml"], "'xml' is not one of 'prometheus', 'prometheusrule'"),
        (["--time-scale", "0"], "The time scale 0.0 can't divide a duration: give a number above 0"),
        (["--time-scale", "-3"], "The time scale -3.0 can't divide a duration"),
        (["--time-scale", "nan"], "The time scale nan can't divide a duration"),
        (["--time-scale", "1e6"], "The time scale 1000000.0 makes 30s shorter than 1ms"),
        (["--time-scale", "fast"], "'fast' is not a valid float"),
        (["--set", "HighErrorRate.for=soon"], "asks for no wait: give one of 1m or more, e.g. 10m"),
        (["--disable", "HighErrorrate"], "is not among these rules: give one of CPUThrottled, Check"),
        (["--window", "7"], "'7' is not one of '28', '30'"),
        (["--service", ""], "The service name '' can't be used: give 1 to 200 letters"),
        (["--service", 'a"b'], "The service name 'a\"b' can't be used"),
        (["--job", "a\\b"], "The job name 'a\\\\b' can't be used"),
        (["--service", "orders", "--job", "a\nb"], "The job name 'a\\nb' can't be used"),
    ],
)
def test_bad_input_of_rules_is_one_sentence(arguments, sentence, tmp_path):
    """
    The sentence has the value and what to do; nothing is printed, and the file stays as it was.
    """
    out = tmp_path / "rules.yaml"
    out.write_text("old", encoding="utf-8")

    for more in ([], ["--out", out]):
        result = call("rules", *arguments, *more)

        assert 2 == result.exit_code
        assert "" == result.stdout
        assert sentence in result.stderr
        assert "Traceback" not in result.stderr
    assert {"rules.yaml": "old"} == files_below(tmp_path)


@pytest.mark.parametrize("command", ["rules", "dashboards", "render"])
@pytest.mark.parametrize("place", ["a file", "a place without a directory", "a read-only place"])
def test_path_that_can_t_be_written_is_one_sentence(command, place, tmp_path):
    """
    A file where a directory is needed, a missing directory, a place that nobody may write to.
    """
    (tmp_path / "file").write_text("old", encoding="utf-8")
    out = {
        "a file": tmp_path / "file" / "below",
        "a place without a directory": Path("/proc/none/below"),
        "a read-only place": Path("/proc/below"),
    }[place]

    result = call(command, "--out", out)

    assert 1 == result.exit_code
    assert result.stderr.startswith(("Error: Can't write '", "Error: Can't make the directory '"))
    assert 1 == len(result.stderr.splitlines())
    assert "" == result.stdout


def test_directory_as_a_file_is_one_sentence(tmp_path):
    """
    Rules want a file.
    """
    result = call("rules", "--out", tmp_path)

    assert 1 == result.exit_code
    assert f"Can't write '{tmp_path}': Is a directory." in result.stderr


def test_dashboards_of_an_impossible_service_are_refused(tmp_path):
    """
    The same names as for rules.
    """
    result = call("dashboards", "--service", "a b", "--out", tmp_path)

    assert 2 == result.exit_code
    assert "The service name 'a b' can't be used" in result.stderr
    assert {} == files_below(tmp_path)


@pytest.mark.parametrize("library", ["click", "rich", "yaml"])
def test_missing_library_is_named_with_its_remedy(library):
    """
    Without the extra the command says what to install, and ends with 1.
    """
    program = f"import sys; sys.modules[{library!r}] = None; from scaleobs.cli.main import run; run()"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert 1 == result.returncode
    assert "" == result.stdout
    assert "The scaleobs command needs click, rich and PyYAML: pip install 'scaleobs[cli]'\n" == result.stderr


def test_reader_who_leaves_early_gets_no_traceback():
    """
    `scaleobs rules | head -1` is fine.
    """
    reading, writing = os.pipe()
    os.close(reading)
    program = Path(sys.executable).parent / "scaleobs"
    result = subprocess.run([program, "rules"], stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)

    assert "Traceback" not in result.stderr
