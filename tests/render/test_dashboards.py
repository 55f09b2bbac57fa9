"""The dashboard keeps the rules of Grafana's linter, and shows nothing that isn't exposed."""

import itertools
import json
import re

import pytest
from promql_parser import MatrixSelector

from scaleobs._render.dashboards import dashboard, file_name
from scaleobs._render.output import dashboard_texts
from support.promql import nodes, strangers

PAGES = {"every": dashboard(), "orders": dashboard("orders")}
each_page = pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)


def filled(expression):
    """Return the expression as Grafana sends it."""
    expression = expression.replace("$__rate_interval", "5m").replace("$__range", "1h")
    return re.sub(r"\$(job|instance|route)", ".+", expression)


def panels(page):
    """Return the panels that show something."""
    return [panel for panel in page["panels"] if panel["type"] != "row"]


def expressions(page):
    """Return the expressions of all panels and annotations."""
    shown = [target["expr"] for panel in panels(page) for target in panel["targets"]]
    return shown + [annotation["expr"] for annotation in page["annotations"]["list"]]


@each_page
def test_page_can_be_provisioned(page):
    """
    Classic JSON that can't be edited in place, with a stable name and no inputs on import.
    """
    assert 39 == page["schemaVersion"]
    assert page["editable"] is False
    assert 1 == page["graphTooltip"]
    assert re.fullmatch(r"[a-z0-9-]{1,40}", page["uid"])
    assert "__inputs" not in page
    assert "id" not in page


@each_page
def test_panels_have_their_own_number_and_place(page):
    """
    Numbers are unique, and no two panels overlap or leave the page.
    """
    numbers = [panel["id"] for panel in page["panels"]]
    places = [
        {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        for place in (panel["gridPos"] for panel in page["panels"])
    ]

    assert len(numbers) == len(set(numbers))
    assert not any(first & second for first, second in itertools.combinations(places, 2))
    assert 23 == max(x for place in places for x, _ in place)


@each_page
def test_panel_explains_itself(page):
    """
    Each has a title of its own, a description, a unit, a query, and the data source that was chosen.
    """
    titles = [panel["title"] for panel in page["panels"]]

    assert len(titles) == len(set(titles))
    for panel in panels(page):
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["targets"], panel["title"]
        for holder in (panel, *panel["targets"]):
            assert {"type": "prometheus", "uid": "${datasource}"} == holder["datasource"], panel["title"]
        references = [target["refId"] for target in panel["targets"]]
        assert len(references) == len(set(references)), panel["title"]


@each_page
def test_rows_are_rate_errors_duration_saturation(page):
    """
    The four rows are in this order.
    """
    assert ["Rate", "Errors", "Duration", "Saturation"] == [
        panel["title"] for panel in page["panels"] if panel["type"] == "row"
    ]


@each_page
def test_page_names_nothing_that_is_not_catalogued(page):
    """
    Each expression parses, and its series and labels are in the catalog.
    """
    assert [] == [stranger for expression in expressions(page) for stranger in strangers(filled(expression))]


@each_page
def test_legend_uses_labels_that_the_expression_keeps(page):
    """
    A legend names only labels that its query groups by.
    """
    for panel in panels(page):
        for target in panel["targets"]:
            for label in re.findall(r"{{(\w+)}}", target["legendFormat"]):
                assert re.search(rf"by \([^)]*\b{label}\b", target["expr"]), panel["title"]


@each_page
def test_every_selector_follows_the_variables(page):
    """
    Panels select by job and instance, by regular expression, and by route if the metric has one.
    """
    for panel in panels(page):
        for target in panel["targets"]:
            for selector in re.findall(r"(\w+)\{([^}]*)\}", target["expr"]):
                assert 'job=~"$job"' in selector[1], panel["title"]
                assert 'instance=~"$instance"' in selector[1], panel["title"]
                assert ('route=~"$route"' in selector[1]) == selector[0].startswith(("http_", "websocket_")), panel[
                    "title"
                ]


@each_page
def test_ranges_follow_the_page(page):
    """
    A line's range is `$__rate_interval`; a table's is the whole range, in one query.
    """
    for panel in panels(page):
        expected = "$__range" if panel["type"] == "table" else "$__rate_interval"
        for target in panel["targets"]:
            assert set(re.findall(r"\[([^]]+)\]", target["expr"])) <= {expected}, panel["title"]
            assert (panel["type"] == "table") == target.get("instant", False), panel["title"]


@each_page
def test_counters_are_never_shown_raw(page):
    """
    Counters and buckets appear inside rate() or increase() only.
    """
    for expression in expressions(page):
        ranges = [str(node) for node in nodes(filled(expression)) if isinstance(node, MatrixSelector)]
        for name in re.findall(r"(\w+(?:_total|_bucket|_count|_sum))\{", expression):
            assert any(name in text for text in ranges), expression


@each_page
def test_quiet_service_shows_no_errors_and_a_gone_one_nothing(page):
    """
    A ratio is 0 without failures and absent without requests; no gap is filled with `vector(0)`.
    """
    (ratio,) = (panel["targets"][0]["expr"] for panel in page["panels"] if panel["title"] == "Error ratio")

    assert "or\n  0 * sum by (job)" in ratio
    assert ratio.endswith("> 0)")
    assert "vector(" not in json.dumps(page)


@each_page
def test_variables_choose_what_is_shown(page):
    """
    The data source, then job, instance and route: several at once, all of them at first, fresh with the time range.
    """
    source, *others = page["templating"]["list"]

    assert ("datasource", "datasource", "prometheus") == (source["name"], source["type"], source["query"])
    assert ["job", "instance", "route"] == [variable["name"] for variable in others]
    for variable in others:
        is_open = variable["current"]["value"] == "$__all"
        assert {"multi": is_open, "includeAll": is_open, "allValue": ".+", "refresh": 2}.items() <= variable.items()
        selector, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]).groups()
        assert variable["name"] == label
        assert [] == strangers(f"count by ({label}) ({filled(selector)})")


@each_page
def test_restarts_and_alerts_are_marked(page):
    """
    Two annotations, switched on.
    """
    assert {"Restarts": True, "Alerts": True} == {
        annotation["name"]: annotation["enable"] for annotation in page["annotations"]["list"]
    }


def test_dashboard_of_one_service_offers_its_job_only():
    """
    The service's name is in title, file and number; its job in the variable.
    """
    page = dashboard("Orders", job="shop/orders")

    assert "scaleobs-orders" == page["uid"]
    assert "Service Orders" == page["title"]
    assert 'label_values(service_info{job="shop/orders"}, job)' == page["templating"]["list"][1]["query"]
    assert {"text": "shop/orders", "value": "shop/orders"} == page["templating"]["list"][1]["current"]
    assert "orders.json" == file_name("Orders", "shop/orders")
    assert "service.json" == file_name()


def test_long_names_have_short_and_different_numbers():
    """
    Grafana takes 40 characters; names that are cut off differ by a digest.
    """
    first, second = (dashboard("a" * 60 + end)["uid"] for end in "bc")

    assert 40 == len(first)
    assert first != second


def test_text_is_json_for_people():
    """
    The file holds the same data, indented, in the same order, with a newline at its end.
    """
    text = dashboard_texts()["service.json"]

    assert dashboard() == json.loads(text)
    assert list(dashboard()) == list(json.loads(text))
    assert text.startswith('{\n  "uid"')
    assert text.endswith("}\n")
