"""Nothing is exposed that no rule and no panel uses."""

from scaleobs._render.dashboards import dashboard
from scaleobs._render.rules import rules
from scaleobs.catalog import EXPOSED, OUTSIDE, PROCESS, RUNTIME
from support.promql import families


def test_every_catalogued_family_is_used():
    """
    Each family of the catalog is in a rule or on the dashboard.
    """
    page = dashboard()
    expressions = [rule["expr"] for group in rules() for rule in group.rules]
    expressions += [target["expr"] for panel in page["panels"] for target in panel.get("targets", ())]
    expressions += [annotation["expr"] for annotation in page["annotations"]["list"]]
    expressions = [text.replace("$__rate_interval", "5m").replace("$__range", "1h") for text in expressions]

    used = set().union(*map(families, expressions))

    assert {metric.name for metric in (*EXPOSED, *RUNTIME, *PROCESS, *OUTSIDE)} == used
