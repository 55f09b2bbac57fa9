"""The documentation is true: its code runs, its output is real, its tables match the code, its links resolve."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
import yaml
from prometheus_client import CollectorRegistry

import scaleobs
from scaleobs import catalog
from scaleobs._cli.demo.processes import running
from scaleobs._render.output import dashboard_texts, rules_text
from scaleobs.objectives import Availability, Latency
from scaleobs.settings import Settings
from support.exchanges import log_lines

ROOT = Path(__file__).parents[1]
FOLDERS = (".", "docs", "integrations/*", "dashboards", "alert_rules", "benchmarks")
PAGES = sorted(page.relative_to(ROOT).as_posix() for folder in FOLDERS for page in ROOT.glob(f"{folder}/*.md"))
RULES = yaml.safe_load(rules_text(objectives=[Availability(99.9), Latency(99, under=0.5)]))
SEVERITIES = {}
for _rule in (rule for group in RULES["groups"] for rule in group["rules"] if "alert" in rule):
    SEVERITIES.setdefault(_rule["alert"], set()).add(_rule["labels"]["severity"])
MEASURED = ("timestamp", "request_id", "duration_seconds")
SERVERS = ("uvicorn", "gunicorn", "granian", "hypercorn")
CURL = re.compile(
    r"^\$ curl -s (?:-H '(?P<header>[^']+)' )?localhost:8000(?P<path>\S+)(?: \| grep '(?P<grep>[^']+)')?$"
)


def text_of(page):
    return (ROOT / page).read_text()


def blocks(page):
    """Return the code blocks of a page, each with its language and its text."""
    return re.findall(r"^```(\w*)\n(.*?)^```", text_of(page), re.MULTILINE | re.DOTALL)


def every(*languages):
    """Return a parameter for each block in one of the languages: its page, and its place among the page's blocks."""
    return [
        pytest.param(page, number, id=f"{page}-{number}")
        for page in PAGES
        for number, (language, _) in enumerate(blocks(page))
        if language in languages
    ]


def shell_lines():
    """Return a parameter for each command of the shell blocks: its page, and its number among the page's commands."""
    return [
        pytest.param(page, number, id=f"{page}-{line.split('|')[0].strip()}")
        for page in PAGES
        for number, line in enumerate(commands(page))
    ]


def commands(page):
    """Return the commands of a page's shell blocks without their comments."""
    lines = "".join(text for language, text in blocks(page) if language == "sh").splitlines()
    return [line for line in (re.sub(r"(^|\s+)#.*", "", line) for line in lines) if line]


def table_rows(page):
    """Return the rows of a page's tables by the code in their first cell."""
    rows = (line.strip("|").split("|") for line in text_of(page).splitlines() if line.startswith("| "))
    return {name[1]: cells for cells in rows if (name := re.match(r"\s*\[?`([^`]+)`", cells[0]))}


@pytest.fixture
def run(monkeypatch):
    """Run the Python blocks of a page in front of one of its blocks, in an instrumented application of the README."""
    instrument = scaleobs.instrument
    monkeypatch.setattr(
        scaleobs, "instrument", lambda app, **given: instrument(app, **{"registry": CollectorRegistry(), **given})
    )

    async def nothing():
        return True

    names = {
        "pool_answers": nothing,
        "queue": SimpleNamespace(stop_taking=nothing),
        "catalog": SimpleNamespace(load=nothing),
    }

    def run_until(page, end):
        exec(blocks("README.md")[0][1], names)
        for language, text in blocks(page)[:end] if page != "README.md" else ():
            if language == "python":
                exec(text, names)
        return names

    return run_until


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """Return the port of the README's service, which a real server runs for all commands that need one."""
    directory = tmp_path_factory.mktemp("shop")
    (directory / "shop.py").write_text(blocks("README.md")[0][1])
    environment = {**os.environ, "SCALEOBS_DRAIN_SECONDS": "0"}

    def command(port):
        return [sys.executable, "-m", "uvicorn", "shop:app", "--port", str(port)]

    with running("shop", command, ready="/ready", directory=directory, env=environment) as program:
        yield program.port


@pytest.mark.parametrize(("page", "number"), every("python"))
def test_python_runs(page, number, run, capsys):
    """
    Each Python block runs after those before it; what it prints or logs is the block behind it.
    """
    run(page, number)
    capsys.readouterr()
    run(page, number + 1)
    shown = blocks(page)[number + 1 : number + 2]
    if shown and shown[0][0] == "text" and "print(" in blocks(page)[number][1]:
        assert shown[0][1] == capsys.readouterr().out
    elif shown and shown[0][0] == "json":
        (line,) = log_lines(capsys)

        assert list(json.loads(shown[0][1])) == list(line)
        assert {**json.loads(shown[0][1]), "timestamp": ""} == {**line, "timestamp": ""}


@pytest.mark.parametrize(("page", "number"), every("console"))
def test_console_shows_what_is_answered(page, number, run):
    """
    The service of the blocks before it answers each curl line as shown.
    """
    names = run(page, number)
    calls = re.split(r"^(?=\$ )", blocks(page)[number][1], flags=re.MULTILINE)[1:]

    async def talk():
        answers = []
        transport = httpx.ASGITransport(names["app"])
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8000") as client:
            for call in calls:
                line = CURL.match(call.splitlines()[0])
                headers = dict([line["header"].split(": ", 1)]) if line["header"] else {}
                answer = (await client.get(line["path"], headers=headers)).text
                matching = [one for one in answer.splitlines() if re.search(line["grep"] or "", one)]
                answers.append("\n".join(matching).strip())
        return answers

    assert ["\n".join(call.splitlines()[1:]).strip() for call in calls] == asyncio.run(talk())


def test_the_readme_shows_the_line_of_a_request(run, capsys):
    """
    The log line in the README has the fields of a real one, in their order, and their values unless they are measured.
    """
    names = run("README.md", 0)

    async def call():
        transport = httpx.ASGITransport(names["app"])
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8000") as client:
            await client.get("/items/3")

    asyncio.run(call())
    (written,) = [line for line in log_lines(capsys) if line["event"] == "request.finished"]
    (shown,) = [json.loads(text) for language, text in blocks("README.md") if language == "json"]

    assert list(shown) == list(written)
    assert {**shown, **dict.fromkeys(MEASURED)} == {**written, **dict.fromkeys(MEASURED)}


@pytest.mark.parametrize(("page", "number"), every("toml"))
def test_toml_is_a_configuration(page, number, tmp_path):
    """
    Each TOML block is a file that `scaleobs rules --config` reads.
    """
    assert tomllib.loads(blocks(page)[number][1])

    prepare(tmp_path, page)
    done = run_command(["scaleobs", "rules", "--config", "scaleobs.toml"], tmp_path)

    assert 0 == done.returncode, done.stderr
    assert done.stdout


@pytest.mark.parametrize(("page", "number"), every("yaml"))
def test_yaml_is_read(page, number, tmp_path):
    """
    Each YAML block is YAML; promtool accepts it if it is a configuration of Prometheus.
    """
    content = yaml.safe_load(blocks(page)[number][1])

    assert content
    if "scrape_configs" in content:
        (tmp_path / "prometheus.yml").write_text(blocks(page)[number][1])
        (tmp_path / "orders.token").write_text("secret")
        done = run_command(["promtool", "check", "config", "prometheus.yml"], tmp_path)

        assert 0 == done.returncode, done.stderr


@pytest.mark.parametrize(("page", "number"), every("json"))
def test_json_is_read(page, number):
    """
    Each line of a JSON block is a JSON object.
    """
    for line in blocks(page)[number][1].splitlines():
        assert isinstance(json.loads(line), dict)


def prepare(directory, page):
    """Write the files that commands of the pages refer to."""
    (directory / "shop.py").write_text(blocks("README.md")[0][1])
    shutil.copytree(ROOT / "integrations", directory / "integrations")
    shutil.copytree(ROOT / "alert_rules", directory / "alert_rules")
    files = [text for language, text in (*blocks(page), *blocks("docs/rules.md")) if language == "toml"]
    (directory / "scaleobs.toml").write_text(files[0])


def run_command(words, directory):
    installed = Path(sys.executable).with_name(words[0])  # ours before another of that name on PATH
    program = str(installed) if installed.exists() else shutil.which(words[0])
    assert program, f"{words[0]} is not installed: run `make test`, which brings it and puts it on PATH."
    return subprocess.run([program, *words[1:]], cwd=directory, capture_output=True, check=False, timeout=150)


@pytest.mark.servers
@pytest.mark.parametrize(("page", "number"), shell_lines())
def test_command_works(page, number, tmp_path, request):
    """
    Each command of scaleobs, promtool and amtool runs; of the others, targets, extras, files and options exist.
    """
    line = re.sub(r"^(\w+=\S+ )+", "", commands(page)[number].split(" | ")[0].strip())
    words = shlex.split(line)
    before = set()
    if words[0] in ("scaleobs", "promtool", "amtool", "python"):
        if words[1] == "run":
            words = words[words.index("--") + 1 :]
        else:
            prepare(tmp_path, page)
            for earlier in commands(page)[:number]:
                written = re.search(r"--out (\S+\.yml)", earlier)
                if written and written[1] in line:
                    run_command(shlex.split(earlier), tmp_path)
            if "/etc/prometheus/" in line:
                shutil.copy(tmp_path / "alert_rules" / "scaleobs.yaml", tmp_path / "integrations" / "prometheus")
                words = [word.replace("/etc/prometheus/", "integrations/prometheus/") for word in words]
            if "8000" in line:
                port = str(request.getfixturevalue("shop"))
                words = [word.replace("8000", port) for word in words]
            before = set(tmp_path.rglob("*.*"))
            done = run_command(words, tmp_path)

            # A finding in what the service shows is an answer, too.
            assert done.returncode in ((0, 1) if words[:2] == ["scaleobs", "check"] else (0,)), done.stderr
            assert done.stdout or done.stderr or set(tmp_path.rglob("*.*")) - before
            return
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", text_of("Makefile"), re.MULTILINE)
    elif words[:2] == ["pip", "install"]:
        extras = tomllib.loads(text_of("pyproject.toml"))["project"]["optional-dependencies"]
        assert set(re.findall(r"\[(\w+)\]", line)) <= extras.keys()
    elif words[0] in SERVERS:
        options = run_command([words[0], "--help"], tmp_path).stdout.decode()
        assert [] == [word for word in words if word.startswith("--") and word not in options]
        assert [] == [word for word in words if "/" in word and not (ROOT / word.removeprefix("json:")).exists()]
    else:
        assert words[0] in ("cp", "kubectl")
        assert [] == [one for one in words if "/" in one and not one.startswith("/etc") and not (ROOT / one).exists()]


def test_the_readme_is_one_screen():
    """
    The README has at most 80 lines.
    """
    assert len(text_of("README.md").splitlines()) <= 80


def test_the_tables_of_metrics_are_the_catalog():
    """
    Each metric of the catalog has a row with its type, its labels and its meaning, and there is no other row.
    """
    metrics = (*catalog.EXPOSED, *catalog.RUNTIME, *catalog.ON_REQUEST, *catalog.PROCESS)
    rows = {name: [cell.strip() for cell in cells] for name, cells in table_rows("docs/metrics.md").items()}
    expected = {
        one.name: [f"`{one.name}`", one.kind, ", ".join(f"`{label}`" for label in one.labels)] for one in metrics
    }

    assert expected == {name: cells[:3] for name, cells in rows.items()}
    assert all(cells[3] for cells in rows.values())


def test_the_page_of_metrics_has_the_buckets():
    """
    The bounds of all histograms are those of the catalog.
    """
    page = text_of("docs/metrics.md")

    for bounds in (catalog.DEFAULT_BUCKETS, catalog.LAG_BUCKETS, catalog.WEBSOCKET_BUCKETS, catalog.SIZE_BUCKETS):
        assert ", ".join(f"{bound:.6f}".rstrip("0").rstrip(".") for bound in bounds) in page


def test_the_table_of_settings_is_the_code():
    """
    Each setting has a row with its variables, its default and the limits of its values, and there is no other row.
    """
    rows = table_rows("docs/settings.md")
    wrong = []
    for field in dataclasses.fields(Settings):
        _, variables, default, values = rows.get(field.name, ("",) * 4)
        variable = f"SCALEOBS_{field.name.upper()}"
        try:
            is_variable = Settings.read({}, {variable: "\0"}) != Settings()
        except scaleobs.SettingsError:
            is_variable = True
        if is_variable is not (f"`{variable}`" in variables):
            wrong.append((field.name, "variable"))
        value = field.default
        is_shown = f"`{value:g}`" if type(value) is float else f"`{value}`"
        if (value is None or isinstance(value, bool | int | float | str)) and is_shown not in default:
            wrong.append((field.name, "default"))
        if not limits(field.name) <= set(re.findall(r"[\w.]+", values)):
            wrong.append((field.name, "values"))

    assert [] == wrong
    assert {field.name for field in dataclasses.fields(Settings)} == rows.keys()


def limits(name):
    """Return the closed set of values of a setting, or the ends of its range, as its error lists them."""
    try:
        Settings.read({name: object()})
    except scaleobs.SettingsError as error:
        fix = str(error).rpartition(": give ")[2]
        if numbers := re.match(r"[a-z ]+ from (\d+) to (\d+)", fix):
            return set(numbers.groups())
        if fix.startswith("one of ") and "True" not in fix:
            return set(fix.removeprefix("one of ").rstrip(".").split(", "))
    return set()


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({"OTEL_SERVICE_NAME": "billing"}, "service"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=billing"}, "service"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.version=billing"}, "version"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=billing"}, "environment"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=billing"}, "environment"),
    ],
)
def test_opentelemetry_variables_are_in_the_table(environment, name):
    """
    A variable of OpenTelemetry that gives a setting is in its row.
    """
    assert "billing" == getattr(Settings.read({}, environment), name)
    assert f"`{next(iter(environment))}`" in table_rows("docs/settings.md")[name][1]


def test_the_table_of_check_options_is_the_code():
    """
    Each option of a check has a row with its default.
    """
    rows = table_rows("docs/health.md")
    options = [one for one in dataclasses.fields(scaleobs.Check) if one.kw_only]

    assert len(options) >= 7
    for one in options:
        default = json.dumps(one.default) if isinstance(one.default, str) else str(one.default)
        assert f"`{default}`" == rows[one.name][1].strip()


def test_every_ready_made_check_has_a_row():
    """
    The page of health checks lists all of `scaleobs.checks`.
    """
    from scaleobs import checks

    shown = {name.partition("(")[0] for name in table_rows("docs/health.md")}

    assert set(checks.__all__) <= shown


def test_the_table_of_alerts_is_that_of_the_rules():
    """
    Each alert has a row with its severity, and there is no other row.
    """
    rows = {name: cells for name, cells in table_rows("docs/rules.md").items() if name[0].isupper()}

    assert SEVERITIES.keys() == rows.keys()
    for name, severities in SEVERITIES.items():
        assert {rows[name][1].strip()} == (severities if len(severities) == 1 else {"by window"})


def test_the_flags_in_the_page_of_rules_exist():
    """
    Each flag that the page of rules names is one of the command.
    """
    known = "".join(
        run_command(["scaleobs", command, "--help"], ROOT).stdout.decode()
        for command in ("rules", "check", "stories", "dashboards", "render")
    )
    flags = set(re.findall(r"`(--[a-z-]+)", text_of("docs/rules.md")))

    assert len(flags) > 10
    assert set() == {flag for flag in flags if flag not in known}


def test_overrides_in_the_page_of_rules_are_possible():
    """
    Each `--set` that the page shows is one that the rules take.
    """
    changes = re.findall(r"`--set (\w+\.\w+=[^`\s]+)`", text_of("docs/rules.md"))

    assert len(changes) >= 3
    assert all(rules_text("orders", overrides=[one]) for one in changes)


def test_a_taken_management_port_has_the_error_that_is_shown():
    """
    The lifespan fails with the sentence that the page of the management port shows.
    """
    messages = []
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]

        async def hello(scope, receive, send):
            await receive()
            await send({"type": "lifespan.startup.complete"})

        app = scaleobs.instrument(hello, management_port=port, registry=CollectorRegistry())

        async def receive():
            return {"type": "lifespan.startup"}

        async def send(message):
            messages.append(message)

        asyncio.run(app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send))
    (shown,) = [text.strip() for language, text in blocks("docs/management.md") if language == "text"]

    assert [shown.replace("9090", str(port))] == [message.get("message") for message in messages]


def test_every_folder_of_integrations_is_named():
    """
    The page of rules names each folder of `integrations/` with its use.
    """
    page = text_of("docs/rules.md")
    about = page[page.index("`scaleobs render --out DIR` writes") :].split("\n\n")[0]

    assert [] == [folder.name for folder in (ROOT / "integrations").iterdir() if folder.name not in about]


def test_the_readme_links_every_page():
    """
    Each page of `docs/` can be reached from the README, directly or over another page.
    """
    reached, left = set(), ["README.md"]
    while left:
        page = left.pop()
        if page not in reached:
            reached.add(page)
            left += [target for target, _ in links(page) if target in PAGES]

    assert set() == {page for page in PAGES if page.startswith("docs/")} - reached


@pytest.mark.parametrize("page", PAGES)
def test_headings_have_a_text(page):
    """
    Behind each heading is a sentence, and not another heading.
    """
    prose = re.sub(r"^```.*?^```", "", text_of(page), flags=re.MULTILINE | re.DOTALL)

    assert [] == re.findall(r"^(#+ .+)\n\s*(?=#|\Z)", prose, re.MULTILINE)


def test_every_module_is_named():
    """
    The page of the architecture has a row for each module and package, and there is no other row.
    """
    source = ROOT / "src" / "scaleobs"
    folders = {folder.parent.relative_to(source).as_posix() + "/" for folder in source.glob("*/__init__.py")}
    modules = {file.name for file in source.glob("*.py")} | folders

    assert modules == {name for name in table_rows("docs/architecture.md") if name.endswith((".py", "/"))}


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_files_of_the_sources_exist(page):
    """
    Each file or folder that a page for developers names is there, below the package or below the root.
    """
    named = set(re.findall(r"`([\w./]+(?:\.(?:py|md|yaml)|/))`", text_of(page)))

    assert len(named) > 10
    assert [] == [one for one in named if not any((top / one).exists() for top in (ROOT, ROOT / "src" / "scaleobs"))]


def test_promises_have_tests():
    """
    Each test that SECURITY.md names exists, and each promise there names one.
    """
    text = text_of("SECURITY.md")
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)
    tables = re.findall(r"^\| promise \| test \|\n\|---\|---\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    promises = [row for table in tables for row in table.splitlines()]

    assert len(named) >= len(promises) > 20
    assert [] == [row for row in promises if "::" not in row.split("|")[2]]
    assert [] == [one for one in named if f"def {one[1]}(" not in (ROOT / one[0]).read_text()]
    assert len(tables) == text.count("\n**Your task**\n")


def links(page):
    """Return the relative links of a page: the path from the root, and the anchor."""
    prose = re.sub(r"^```.*?^```", "", text_of(page), flags=re.MULTILINE | re.DOTALL)
    found = []
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", prose):
        path, _, anchor = link.partition("#")
        target = os.path.normpath((ROOT / page).parent / path) if path else str(ROOT / page)
        found.append((os.path.relpath(target, ROOT), anchor))
    return found


def anchors(page):
    """Return the anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", text_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_resolve(page):
    """
    Every file, folder and heading that a page links to exists.
    """
    broken = [
        (path, anchor)
        for path, anchor in links(page)
        if not (ROOT / path).exists() or (anchor and anchor not in anchors(path))
    ]

    assert [] == broken


def test_changelog_names_every_alert():
    """
    The list of alerts in the changelog is complete.
    """
    changelog = text_of("CHANGELOG.md")

    assert [] == [one for one in SEVERITIES if f"`{one}`" not in changelog]


def test_runbook_names_panels_that_exist():
    """
    Italics in the runbook are a row or a panel of the dashboard, or a page of Prometheus.
    """
    panels = json.loads(dashboard_texts()["service.json"])["panels"]
    titles = {panel["title"] for row in panels for panel in (row, *row.get("panels", ()))}
    runbook = text_of("alert_rules/RUNBOOK.md")
    named = {name.replace("\n  ", " ") for name in re.findall(r"(?<!\*)\*([A-Z][^*]+)\*(?!\*)", runbook)}

    assert named
    assert set() == {name for name in named if not name.startswith("Status →")} - titles


def test_overrides_in_the_runbook_are_possible():
    """
    Each `--set` that the runbook shows is one that the rules take.
    """
    changes = re.findall(r"--set (\w+\.\w+=[^`\s]+)`", text_of("alert_rules/RUNBOOK.md"))

    assert len(changes) >= 3
    assert rules_text("orders", overrides=changes)
