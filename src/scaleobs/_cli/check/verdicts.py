"""Findings, and the verdict on each query: whether its series exist, and if not, whether that is normal."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from scaleobs import catalog
from scaleobs._cli.check import expressions
from scaleobs._cli.check.expressions import Matcher, Selector
from scaleobs._cli.check.fetch import RefusedError
from scaleobs._cli.check.sources import Question

FINDING, NOTE = "finding", "note"

_OURS = (*catalog.EXPOSED, *catalog.RUNTIME, *catalog.ON_REQUEST, *catalog.PROCESS)
FAMILIES = {series: metric for metric in (*_OURS, *catalog.OUTSIDE) for series in metric.series}
_NATIVE = {metric.name: metric for metric in _OURS if metric.kind == "histogram"}
FAMILIES |= _NATIVE
_EXTERNAL_PREFIXES = ("container_", "kube_", "kubelet_", "machine_", "node_", "scrape_", "prometheus_")
_EXTERNAL = frozenset({"ALERTS_FOR_STATE", *(metric.name for metric in catalog.OUTSIDE)})

# Labels with a fixed set of values: a matcher that matches none of them never matches anything.
_VALUES: dict[str, tuple[str, ...]] = {
    "method": (*sorted(catalog.METHODS), catalog.OTHER_METHOD),
    "status_code": tuple(map(str, range(100, 1000))),
    "protocol": ("http", "websocket"),
    "probe": catalog.PROBES,
    "level": catalog.LOG_LEVELS,
}
_LATER_ROUTES = (catalog.UNMATCHED_ROUTE, "_overflow")

_OF_WEBSOCKETS = (catalog.WEBSOCKETS, catalog.WEBSOCKET_DURATION)
"""Their routes may be other ones than those of requests."""

_NORMALLY_MISSING = {
    catalog.EVENT_LOOP_LAG: "not present: only ASGI applications have it, once their event loop runs",
    **dict.fromkeys(
        (catalog.POOL_BUSY, catalog.POOL_WAITING, catalog.POOL_SIZE),
        "not present: only ASGI applications have it, once they use a thread pool",
    ),
    **dict.fromkeys(
        (catalog.HEALTH_UP, catalog.HEALTH_DURATION), "not present yet: no check is registered, or none has run"
    ),
    **dict.fromkeys((catalog.REQUESTS, catalog.DURATION), "not present yet: no request has finished"),
    **dict.fromkeys(_OF_WEBSOCKETS, "not present yet: no WebSocket has closed"),
    **dict.fromkeys(catalog.ON_REQUEST, "not present yet: size_histograms is off, or no request has finished"),
}


@dataclass(slots=True)
class Finding:
    """
    One result.

    Attributes:
        level: `finding` if it needs action, or `note`.
        text: what was found.
        subjects: the series, rules or targets that it is about.
        used_by: the rules and panels that are affected.
    """

    level: str
    text: str
    subjects: list[str]
    used_by: list[str]

    def data(self) -> dict[str, object]:
        """Return it for JSON."""
        return {"what": self.text, "subjects": self.subjects, "used_by": self.used_by}


class Findings:
    """All results, in the order in which they were found."""

    def __init__(self) -> None:
        self._by_text: dict[tuple[str, str], Finding] = {}

    def add(self, level: str, subject: str, text: str, used_by: Iterable[str] = ()) -> None:
        """Add a result; results with the same level and text are merged into one with all subjects."""
        finding = self._by_text.setdefault((level, text), Finding(level, text, [], []))
        for names, added in ((finding.subjects, [subject]), (finding.used_by, used_by)):
            names.extend(one for one in added if one and one not in names)

    def of(self, level: str) -> list[Finding]:
        """Return the results of one level."""
        return [finding for finding in self._by_text.values() if finding.level == level]


def name_list(names: Iterable[str], limit: int = 5) -> str:
    """Return the first names in sorted order, and how many there are besides."""
    names = sorted(set(names))
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f"{', '.join(names[:limit])}{more}" if names else "none"


def _suggestion(name: str, names: Iterable[str]) -> str:
    """Return a question with the closest of the names, or nothing."""
    close = difflib.get_close_matches(name, list(names), n=1)
    return f" Did you mean {close[0]}?" if close else ""


class Series(Protocol):
    """The series of a metrics page or of a Prometheus."""

    external_reason: str
    """Why series of Prometheus and Kubernetes are not visible; empty if they are."""
    hidden_labels: frozenset[str]
    """Labels that only Prometheus adds to series, and that are not visible."""

    def names(self) -> Iterable[str]:
        """Return the names of the series, for suggestions."""

    def rows(self, selector: Selector, labels: Iterable[str]) -> list[dict[str, str]]:
        """Return the labels of the selected series, at least those given; no row if there is no series."""

    def label_names(self, name: str) -> set[str]:
        """Return every label that series of that name have."""

    def empty_reason(self, name: str) -> str:
        """Return why it is normal that no recorded series has that name, or nothing."""


def check_questions(questions: list[Question], recorded: frozenset[str], series: Series, findings: Findings) -> int:
    """Add the findings on each query, and return the number of selectors that were checked."""
    used_by: dict[Selector, list[str]] = {}
    for question in questions:
        try:
            expression = expressions.read(question.expression)
        except ValueError as error:
            findings.add(FINDING, question.origin, f"is not valid PromQL: {error}", [question.origin])
            continue
        for selector in expression.selectors:
            used_by.setdefault(selector, []).append(question.origin)
        _check_grouping(question, expression, recorded, series, findings)
    natives = {selector.name for selector in used_by} & {*_NATIVE}
    for selector, origins in used_by.items():
        try:
            level, text = _verdict(selector, recorded, natives, series)
        except RefusedError as error:
            level, text = FINDING, f"Prometheus rejects a query for {selector}: {error}"
        if text:
            findings.add(level, selector.name or str(selector), text, origins)
    return len(used_by)


def _verdict(selector: Selector, recorded: frozenset[str], natives: set[str], series: Series) -> tuple[str, str]:
    """Return the level and the text of the result; an empty text if all is well."""
    name = selector.name
    if not name or "$" in name:
        return NOTE, "not checked: the expression does not contain the name of the series"
    if series.external_reason and (reason := _external_reason(name, recorded, series)):
        return NOTE, reason
    target = tuple(one for one in selector.matchers if one.label in catalog.TARGET_LABELS - series.hidden_labels)
    others = [one for one in selector.matchers if one.label not in {*catalog.TARGET_LABELS, *series.hidden_labels}]
    rows = series.rows(Selector(name, target), [one.label for one in selector.matchers])
    if not rows:
        return _native_only(name, target, natives, series) or _missing(name, target, others, series)
    for one in others:
        if not any(row.get(one.label) for row in rows) and one.label not in (labels := series.label_names(name)):
            return FINDING, f"has no label {one.label!r}; it has {name_list(labels, 8)}"
    for one in others:
        if not any(_fits(one, row) for row in rows):
            return _unmatched(name, one, target, rows, series)
    if not any(all(_fits(one, row) for one in others) for row in rows):
        return NOTE, f"no series yet with all of {', '.join(map(str, others))}"
    return _bucket_spelling(others, rows)


def _external_reason(name: str, recorded: frozenset[str], series: Series) -> str:
    if name in _EXTERNAL or name.startswith(_EXTERNAL_PREFIXES):
        return series.external_reason
    if name in recorded:
        return "recorded by these rules: present once they are loaded and the series that they read are present"
    return "recorded by other rules, so it is not on a metrics page" if ":" in name else ""


def _native_only(name: str, target: tuple[Matcher, ...], natives: set[str], series: Series) -> tuple[str, str] | None:
    """Return the verdict on a classic histogram that Prometheus keeps only as a native one, or None."""
    family = FAMILIES.get(name)
    if name in _NATIVE or family is None or family.name not in _NATIVE:
        return None
    if not series.rows(Selector(family.name, target), ["job"]):
        return None
    if family.name in natives:
        return NOTE, "not present: Prometheus keeps only the native histogram, which is queried as well"
    return FINDING, "not present: Prometheus keeps only the native histogram (set always_scrape_classic_histograms)"


def _missing(name: str, target: tuple[Matcher, ...], others: list[Matcher], series: Series) -> tuple[str, str]:
    """Return the verdict if there is no series of that name, or none of these targets."""
    family = FAMILIES.get(name)
    of = f" with {', '.join(map(str, target))}" if target else ""
    if name in _NATIVE:
        return NOTE, "not present: Prometheus keeps no native histogram, or no request has finished"
    if family in _NORMALLY_MISSING and _is_instrumented(target, series):
        for one in others:
            if (
                one.label == "route"
                and family not in _OF_WEBSOCKETS
                and series.rows(Selector(catalog.REQUESTS.name, target), ["route"])
            ):
                return _unmatched_route(one, target, series)
        return NOTE, _NORMALLY_MISSING[family]
    if name.startswith("ALERTS"):
        return NOTE, "not present: no alert is pending or firing"
    if name.startswith(("container_", "kube_")):
        return NOTE, "not present: no cAdvisor or kube-state-metrics is scraped, which is normal outside Kubernetes"
    if reason := series.empty_reason(name):
        return NOTE, reason
    if target and (rows := series.rows(Selector(name), [one.label for one in target])):
        values = {f'{one.label}="{row.get(one.label, "")}"' for row in rows for one in target}
        return FINDING, f"no series{of}, only with {name_list(values)}"
    if family is not None and family not in catalog.OUTSIDE:
        return FINDING, "not present, although every service with scaleobs has it"
    return FINDING, f"no such series{of}.{_suggestion(name, series.names())}".removesuffix(".")


def _is_instrumented(target: tuple[Matcher, ...], series: Series) -> bool:
    return bool(series.rows(Selector(catalog.INFO.name, target), [one.label for one in target]))


def _fits(matcher: Matcher, row: dict[str, str]) -> bool:
    value = row.get(matcher.label, "")
    if matcher.is_variable:
        return bool(value)
    return matcher.matches(value)


def _unmatched(
    name: str, matcher: Matcher, target: tuple[Matcher, ...], rows: list[dict[str, str]], series: Series
) -> tuple[str, str]:
    """Return the verdict if no series matches now, although the label exists."""
    values = {row.get(matcher.label, "") for row in rows}
    label, is_ours = matcher.label, name in FAMILIES
    if label == "le" and name.endswith("_bucket"):
        bounds = ", ".join(sorted(values - {""}, key=float))
        return FINDING, f"never matches {matcher}: the buckets are {bounds}"
    if is_ours and label in _VALUES:
        if not any(map(matcher.matches, _VALUES[label])):
            return FINDING, f"never matches {matcher}: {_allowed_values(label)}"
        return NOTE, f"no series yet with {matcher}"
    if label == "route" and is_ours:
        return _unmatched_route(matcher, target, series)
    if not is_ours or label == "pool":
        return NOTE, f"no series yet with {matcher}; there are {name_list(values)}"
    return FINDING, f"no series with {matcher}; there are {name_list(values)}.{_suggestion(matcher.value, values)}"


def _unmatched_route(matcher: Matcher, target: tuple[Matcher, ...], series: Series) -> tuple[str, str]:
    # Histograms appear with the first request, but the counter has every known route before it.
    routes = {row.get("route", "") for row in series.rows(Selector(catalog.REQUESTS.name, target), ["route"])}
    if any(map(matcher.matches, (*routes, *_LATER_ROUTES))):
        return NOTE, f"no series yet with {matcher}"
    return FINDING, (
        f"no route with {matcher}, although every route is present before its first request; "
        f"there are {name_list(routes - {''})}.{_suggestion(matcher.value, routes)}"
    )


def _allowed_values(label: str) -> str:
    return "its values have three digits" if label == "status_code" else f"its values are {', '.join(_VALUES[label])}"


def _bucket_spelling(matchers: list[Matcher], rows: list[dict[str, str]]) -> tuple[str, str]:
    """Return a note if a matcher finds its bucket only in the spelling of Prometheus 2."""
    for one in matchers:
        if one.label == "le" and not any(one.matches(_as_prometheus_3(row.get("le", ""))) for row in rows):
            return NOTE, f"matches {one} only in Prometheus 2: Prometheus 3 writes whole numbers as {one.value}.0"
    return "", ""


def _as_prometheus_3(bound: str) -> str:
    return f"{bound}.0" if bound.isdecimal() else bound


def _check_grouping(
    question: Question,
    expression: expressions.Expression,
    recorded: frozenset[str],
    series: Series,
    findings: Findings,
) -> None:
    """Add a finding for each label that a query groups or matches by and that none of its series has."""
    used = {*expression.grouping, *question.labels} - catalog.TARGET_LABELS - series.hidden_labels - {"le", "quantile"}
    for selector in expression.selectors:
        used -= {*FAMILIES[selector.name].labels} if selector.name in FAMILIES else set()
    if not used or expression.creates_labels:
        return
    labels: set[str] = set()
    for selector in expression.selectors:
        name = selector.name
        is_hidden = not name or "$" in name or (series.external_reason and _external_reason(name, recorded, series))
        of_name = set() if is_hidden else series.label_names(name)
        if not of_name and name in FAMILIES:
            of_name = {*FAMILIES[name].labels}
        elif not of_name:
            return
        labels |= of_name
    for label in sorted(used - labels):
        text = f"groups or matches by {label!r}, which none of its series has; they have {name_list(labels, 8)}"
        findings.add(FINDING, question.origin, text, [question.origin])
