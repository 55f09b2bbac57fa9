"""A page of `/metrics`."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from email.message import Message
from http import HTTPStatus
from typing import Any

from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from scaleobs import catalog
from scaleobs.cli.check.asking import Answer, CantAskError, refusal
from scaleobs.cli.check.expressions import Selector
from scaleobs.cli.check.remarks import FINDING, NOTE, Remarks, listed

_READERS: dict[str, Callable[[str], Iterable[Any]]] = {
    "text/plain": read_text,
    "application/openmetrics-text": read_openmetrics,
}
NEAR = 0.8
"""From which share of the cap on label sets on there is something to say."""


class Page:
    """The series of one page, by name."""

    elsewhere = "made by Prometheus or Kubernetes: can't be seen on a page of a service"

    def __init__(self, answer: Answer, added: Iterable[str] = ()) -> None:
        """
        Read the page.

        Args:
            answer: what a service answered.
            added: labels that a scrape adds, beside those that it always does.

        Raises:
            CantAskError: it is no page of metrics.
        """
        header = Message()
        header["Content-Type"] = answer.content_type
        reader = _READERS.get(header.get_content_type()) if answer.content_type else None
        if answer.status != HTTPStatus.OK or reader is None:
            raise CantAskError(refusal(answer))
        self.added = catalog.TARGET_LABELS | frozenset(added)
        self._series: dict[str, list[dict[str, str]]] = defaultdict(list)
        self._values: dict[str, float] = {}
        try:
            for family in reader(answer.body.decode()):
                for sample in family.samples:
                    self._series[sample.name].append(sample.labels)
                    self._values[sample.name] = sample.value
        except (ValueError, KeyError, IndexError) as error:
            msg = f"{answer.url} answered with metrics that can't be read: {error}."
            raise CantAskError(msg) from None

    def names(self) -> Iterable[str]:
        """Return the names of the series."""
        return self._series

    def rows(self, selector: Selector, labels: Iterable[str]) -> list[dict[str, str]]:  # noqa: ARG002
        """Return the labels of the series of that name: a page has no targets to choose."""
        return self._series.get(selector.name, [])

    def label_names(self, name: str) -> set[str]:
        """Return every label that series of that name have."""
        return {label for row in self._series.get(name, ()) for label in row}

    def without(self, name: str) -> str:  # noqa: ARG002
        """Return nothing: what is recorded isn't looked for here."""
        return ""

    def look(self, service: str | None, most: int, remarks: Remarks) -> None:
        """Say whether it is the page of the service that is meant, and how near it is to the cap on label sets."""
        infos = self._series.get(catalog.INFO.name, [])
        if not infos:
            remarks.add(
                FINDING, catalog.INFO.name, "not there: the service isn't instrumented, or its metrics are elsewhere"
            )
        names = {row.get("service_name", "") for row in infos}
        if service and names and service not in names:
            remarks.add(NOTE, catalog.INFO.name, f"the page is that of {listed(names)}; the rules are for {service}")
        _label_sets(self._series.get(f"{catalog.DURATION.name}_count", []), most, remarks)
        if requests := self._values.get(catalog.DROPPED.name):
            remarks.add(FINDING, catalog.DROPPED.name, dropped(requests))


def _label_sets(rows: list[dict[str, str]], most: int, remarks: Remarks) -> None:
    if len(rows) < most * NEAR:
        return
    routes = Counter(row.get("route", "") for row in rows)
    remarks.add(FINDING, catalog.REQUESTS.name, near(len(rows), most, [route for route, _ in routes.most_common(3)]))


def near(count: int, most: int, routes: list[str]) -> str:
    """Return what to say of so many label sets."""
    return f"has {count} label sets of at most {most} (max_label_sets); among its routes are {', '.join(routes)}"


def dropped(requests: float) -> str:
    """Return what to say of so many requests past the cap."""
    return f"the label sets of {requests:.0f} requests were dropped past the limit: some route is not a template"
