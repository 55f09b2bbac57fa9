"""Every alert links to its section of the runbook and to its dashboard, with the variables set."""

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from scaleobs._render.dashboards import dashboard
from scaleobs._render.rules import rules
from scaleobs.objectives import Availability, Latency

RUNBOOK = Path(__file__).parents[2] / "alert_rules" / "RUNBOOK.md"
OBJECTIVES = [Availability(99.9), Latency(99, under=0.5), Availability(99, route="/pay")]


def alerts(*arguments, **more):
    """Return every alert."""
    groups = rules(*arguments, objectives=OBJECTIVES, **more)
    return [rule for group in groups for rule in group.rules if "alert" in rule]


def test_every_alert_has_a_heading_of_the_runbook():
    """
    Headings become anchors in small letters, on GitHub, GitLab and in MkDocs.
    """
    text = RUNBOOK.read_text(encoding="utf-8")
    headings = {line.removeprefix("## ").lower() for line in text.splitlines() if line.startswith("## ")}
    base = "https://wiki.example.com/RUNBOOK.md"
    urls = {rule["annotations"]["runbook_url"] for rule in alerts(runbook_url=base)}

    assert {base} == {url.partition("#")[0] for url in urls}
    assert {url.partition("#")[2] for url in urls} <= headings
    assert "RUNBOOK.md#servicedown" == alerts()[0]["annotations"]["runbook_url"]


@pytest.mark.parametrize("service", [None, "orders", "Shop/Orders.v2:api_" + 40 * "x"])
def test_dashboard_is_the_one_that_is_rendered_beside_the_rules(service):
    """
    Its number and the names of its variables are those of the dashboard of the same service.
    """
    page = dashboard(service)
    variables = {f"var-{variable['name']}" for variable in page["templating"]["list"]}
    for rule in alerts(service, dashboard_url="https://grafana.example.com/team/"):
        url = rule["annotations"]["dashboard_url"]
        parts = urlsplit(url.replace("{{ with $labels.instance }}", "").replace("{{ end }}", ""))

        assert ("grafana.example.com", f"/team/d/{page['uid']}") == (parts.netloc, parts.path)
        assert {"var-job"} <= set(parse_qs(parts.query)) <= variables
        assert url.count("$labels") + url.count("{{ . |") == url.count("urlquery") + url.count("{{ with")


def test_dashboard_shows_what_the_alert_is_about():
    """
    The instance or the route in its texts is selected; an optional label only if the alert has it.
    """
    chosen = {
        rule["alert"]: rule["annotations"]["dashboard_url"].partition("urlquery }}")[2] for rule in alerts("orders")
    }
    instance = "&var-instance={{ $labels.instance | urlquery }}"

    assert "" == chosen["ServiceDown"] == chosen["HighErrorRate"] == chosen["HighMemoryUsage"]
    assert instance == chosen["InstanceDown"] == chosen["StartupStuck"] == chosen["LabelSetsDropped"]
    assert "&var-route={{ $labels.route | urlquery }}" == chosen["HighRouteErrorRate"] == chosen["ErrorBudgetBurn"]
    assert "{{ with $labels.instance }}&var-instance={{ . | urlquery }}{{ end }}" == chosen["HighCPUUsage"]


@pytest.mark.parametrize(
    "url",
    ["", "wiki", "ftp://wiki", "https://wiki/#top", "https://wiki/?a=b", "https://w/{{x}}", "https://w/ x", "https:"],
)
@pytest.mark.parametrize("kind", ["runbook", "dashboard"])
def test_impossible_address_is_refused(kind, url):
    """
    An address to which nothing can be appended would be a broken link in every message.
    """
    with pytest.raises(ValueError, match=f"The {kind} URL .* can't be used: give an address that begins with http"):
        rules(**{f"{kind}_url": url})
