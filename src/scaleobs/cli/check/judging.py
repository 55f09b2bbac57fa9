"""Whether there are series for what a question selects, and if not, whether that is fine."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from scaleobs import catalog
from scaleobs.cli.check import expressions
from scaleobs.cli.check.asking import RefusedError
from scaleobs.cli.check.expressions import Matcher, Selector
from scaleobs.cli.check.remarks import FINDING, NOTE, Remarks, listed, meant
from scaleobs.cli.check.sources import Question

_OURS = (*catalog.EXPOSED, *catalog.RUNTIME, *catalog.ON_REQUEST, *catalog.PROCESS)
FAMILIES = {series: metric for metric in (*_OURS, *catalog.OUTSIDE) for series in metric.series}
_NATIVE = {metric.name: metric for metric in _OURS if metric.kind == "histogram"}
FAMILIES |= _NATIVE
_OUTSIDE_PREFIXES = ("container_", "kube_", "kubelet_", "machine_", "node_", "scrape_", "prometheus_")
_OUTSIDE = frozenset({"ALERTS_FOR_STATE", *(metric.name for metric in catalog.OUTSIDE)})

# A label that can have these values only: what matches none of them never will match anything.
_VALUES: dict[str, tuple[str, ...]] = {
    "method": (*sorted(catalog.METHODS), catalog.OTHER_METHOD),
    "status_code": tuple(map(str, range(100, 1000))),
    "protocol": ("http", "websocket"),
    "probe": catalog.PROBES,
    "level": catalog.LOG_LEVELS,
}
_LATER_ROUTES = (catalog.UNMATCHED_ROUTE, "_overflow")

_FINE_WITHOUT = {
    catalog.EVENT_LOOP_LAG: "not there: that is an ASGI application's, once its event loop runs",
    **dict.fromkeys(
        (catalog.POOL_BUSY, catalog.POOL_WAITING, catalog.POOL_SIZE),
        "not there: that is an ASGI application's, once it uses a pool of threads",
    ),
    **dict.fromkeys(
        (catalog.HEALTH_UP, catalog.HEALTH_DURATION), "not there so far: no check is registered, or none has run"
    ),
    **dict.fromkeys((catalog.REQUESTS, catalog.DURATION), "not there so far: no request has finished"),
    **dict.fromkeys(catalog.ON_REQUEST, "not there so far: size_histograms is off, or no request has finished"),
}


class Series(Protocol):
    """The series of a service or of a Prometheus, as far as they are asked for."""

    elsewhere: str
    """Why series of Prometheus and Kubernetes can't be seen here; empty where they can."""
    added: frozenset[str]
    """Labels that only Prometheus puts on series, and that can't be seen here."""

    def names(self) -> Iterable[str]:
        """Return the names of the series, as far as they may help to find the one that was meant."""

    def rows(self, selector: Selector, labels: Iterable[str]) -> list[dict[str, str]]:
        """Return the labels that the selected series have, or more of theirs; no row where there is no series."""

    def label_names(self, name: str) -> set[str]:
        """Return every label that series of that name have."""

    def without(self, name: str) -> str:
        """Return why there may rightly be no recorded series of that name, or nothing."""


def judge(questions: list[Question], recorded: frozenset[str], series: Series, remarks: Remarks) -> int:
    """Say what is wrong with each question, and return how many selectors were looked at."""
    asked_by: dict[Selector, list[str]] = {}
    for question in questions:
        try:
            expression = expressions.read(question.expression)
        except ValueError as error:
            remarks.add(FINDING, question.who, f"is no PromQL: {error}", [question.who])
            continue
        for selector in expression.selectors:
            asked_by.setdefault(selector, []).append(question.who)
        _judge_labels(question, expression, recorded, series, remarks)
    natives = {selector.name for selector in asked_by} & {*_NATIVE}
    for selector, who in asked_by.items():
        try:
            level, what = _verdict(selector, recorded, natives, series)
        except RefusedError as error:
            level, what = FINDING, f"Prometheus refuses to look for {selector}: {error}"
        if what:
            subject = selector.name or str(selector)
            remarks.add(level, subject, what, who)
    return len(asked_by)


def _verdict(selector: Selector, recorded: frozenset[str], natives: set[str], series: Series) -> tuple[str, str]:
    name = selector.name
    if not name or "$" in name:
        return NOTE, "not looked at: only names that stand in the expression are"
    if series.elsewhere and (why := _unseen(name, recorded, series)):
        return NOTE, why
    target = tuple(one for one in selector.matchers if one.label in catalog.TARGET_LABELS - series.added)
    others = [one for one in selector.matchers if one.label not in {*catalog.TARGET_LABELS, *series.added}]
    rows = series.rows(Selector(name, target), [one.label for one in selector.matchers])
    if not rows:
        return _kept_native(name, target, natives, series) or _absent(name, target, others, series)
    for one in others:
        if not any(row.get(one.label) for row in rows) and one.label not in (labels := series.label_names(name)):
            return FINDING, f"has no label {one.label!r}; it has {listed(labels, 8)}"
    for one in others:
        if not any(_fits(one, row) for row in rows):
            return _unmatched(name, one, target, rows, series)
    if not any(all(_fits(one, row) for one in others) for row in rows):
        return NOTE, f"none so far with all of {', '.join(map(str, others))}"
    return _spelled(others, rows)


def _unseen(name: str, recorded: frozenset[str], series: Series) -> str:
    if name in _OUTSIDE or name.startswith(_OUTSIDE_PREFIXES):
        return series.elsewhere
    if name in recorded:
        return "recorded by these rules: there as soon as they are loaded, and what they read is"
    return "recorded by other rules, which can't be seen here" if ":" in name else ""


def _kept_native(name: str, target: tuple[Matcher, ...], natives: set[str], series: Series) -> tuple[str, str] | None:
    """Return what to say of a classic histogram where there is a native one instead: whoever asks for both is well."""
    family = FAMILIES.get(name)
    if name in _NATIVE or family is None or family.name not in _NATIVE:
        return None
    if not series.rows(Selector(family.name, target), ["job"]):
        return None
    if family.name in natives:
        return NOTE, "not there: Prometheus keeps it as a native histogram alone, which is asked for as well"
    return FINDING, "not there: Prometheus keeps it as a native histogram alone (always_scrape_classic_histograms)"


def _absent(name: str, target: tuple[Matcher, ...], others: list[Matcher], series: Series) -> tuple[str, str]:
    """Return what to say where there is no series of that name, or none of these targets."""
    family = FAMILIES.get(name)
    of = f" with {', '.join(map(str, target))}" if target else ""
    if name in _NATIVE:
        return NOTE, "not there: Prometheus keeps no native histogram, or no request has finished"
    if family in _FINE_WITHOUT and _shows_itself(target, series):
        for one in others:
            if one.label == "route" and series.rows(Selector(catalog.REQUESTS.name, target), ["route"]):
                return _route(one, target, series)
        return NOTE, _FINE_WITHOUT[family]
    if name.startswith("ALERTS"):
        return NOTE, "not there: no alert is pending or firing"
    if name.startswith(("container_", "kube_")):
        return NOTE, "not there: no cAdvisor or kube-state-metrics is scraped, which is fine outside of Kubernetes"
    if why := series.without(name):
        return NOTE, why
    if target and (elsewhere := series.rows(Selector(name), [one.label for one in target])):
        values = {f'{one.label}="{row.get(one.label, "")}"' for row in elsewhere for one in target}
        return FINDING, f"there is none{of}, only {listed(values)}"
    if family is not None and family not in catalog.OUTSIDE:
        return FINDING, "not there, and each service that scaleobs observes shows it"
    return FINDING, f"there is no such series{of}.{meant(name, series.names())}".removesuffix(".")


def _shows_itself(target: tuple[Matcher, ...], series: Series) -> bool:
    return bool(series.rows(Selector(catalog.INFO.name, target), [one.label for one in target]))


def _fits(matcher: Matcher, row: dict[str, str]) -> bool:
    value = row.get(matcher.label, "")
    if matcher.is_variable:
        return bool(value)
    return matcher.matches(value)


def _unmatched(
    name: str, matcher: Matcher, target: tuple[Matcher, ...], rows: list[dict[str, str]], series: Series
) -> tuple[str, str]:
    """Return what to say of a condition that no series fulfils now, though the label is there."""
    there = {row.get(matcher.label, "") for row in rows}
    label, ours = matcher.label, name in FAMILIES
    if label == "le" and name.endswith("_bucket"):
        bounds = ", ".join(sorted(there - {""}, key=float))
        return FINDING, f"never matches {matcher}: the buckets end at {bounds}"
    if ours and label in _VALUES:
        if not any(map(matcher.matches, _VALUES[label])):
            return FINDING, f"never matches {matcher}: {_domain(label)}"
        return NOTE, f"none so far with {matcher}"
    if label == "route" and ours:
        return _route(matcher, target, series)
    if not ours or label == "pool":
        return NOTE, f"none so far with {matcher}; there are {listed(there)}"
    return FINDING, f"there is none with {matcher}; there are {listed(there)}.{meant(matcher.value, there)}"


def _route(matcher: Matcher, target: tuple[Matcher, ...], series: Series) -> tuple[str, str]:
    # A histogram's series come with the first request, the counter's of every route that is known are there before.
    routes = {row.get("route", "") for row in series.rows(Selector(catalog.REQUESTS.name, target), ["route"])}
    if any(map(matcher.matches, (*routes, *_LATER_ROUTES))):
        return NOTE, f"none so far with {matcher}"
    known = listed(routes - {""})
    return FINDING, (
        f"there is no route with {matcher}, though routes are there before their first request; "
        f"there are {known}.{meant(matcher.value, routes)}"
    )


def _domain(label: str) -> str:
    return "it is three digits" if label == "status_code" else f"it is one of {', '.join(_VALUES[label])}"


def _spelled(matchers: list[Matcher], rows: list[dict[str, str]]) -> tuple[str, str]:
    """Return a note where a bucket is found by a spelling that Prometheus 3 doesn't keep."""
    for one in matchers:
        if one.label == "le" and not any(one.matches(_as_prometheus_3(row.get("le", ""))) for row in rows):
            return NOTE, f"matches {one} in Prometheus 2 only: Prometheus 3 keeps whole numbers as {one.value}.0"
    return "", ""


def _as_prometheus_3(bound: str) -> str:
    return f"{bound}.0" if bound.isdecimal() else bound


def _judge_labels(
    question: Question,
    expression: expressions.Expression,
    recorded: frozenset[str],
    series: Series,
    remarks: Remarks,
) -> None:
    """Say which label a question groups or matches by that none of its series has: it would be silently empty."""
    wanted = {*expression.grouping, *question.labels} - catalog.TARGET_LABELS - series.added - {"le", "quantile"}
    for selector in expression.selectors:
        wanted -= {*FAMILIES[selector.name].labels} if selector.name in FAMILIES else set()
    if not wanted or expression.makes_labels:
        return
    labels: set[str] = set()
    for selector in expression.selectors:
        name = selector.name
        has_unknown = not name or "$" in name or (series.elsewhere and _unseen(name, recorded, series))
        of_name = set() if has_unknown else series.label_names(name)
        if not of_name and name in FAMILIES:
            of_name = {*FAMILIES[name].labels}
        elif not of_name:
            return
        labels |= of_name
    for label in sorted(wanted - labels):
        what = f"groups or matches by {label!r}, which none of its series has; they have {listed(labels, 8)}"
        remarks.add(FINDING, question.who, what, [question.who])
