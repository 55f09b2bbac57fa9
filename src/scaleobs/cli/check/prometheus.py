"""What a Prometheus has: series, rules, targets, Alertmanagers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from scaleobs import catalog
from scaleobs.cli.check.asking import Asking, CantAskError, RefusedError, json_of, with_query
from scaleobs.cli.check.expressions import Matcher, Selector, same
from scaleobs.cli.check.page import NEAR, dropped, near
from scaleobs.cli.check.remarks import FINDING, NOTE, Remarks, listed
from scaleobs.cli.check.sources import title

_Rules = dict[str, list[dict[str, Any]]]


class Prometheus:
    """A Prometheus, or what speaks its API, at an address."""

    elsewhere = ""
    added: frozenset[str] = frozenset()

    def __init__(self, url: str, asking: Asking) -> None:
        self._url = url.rstrip("/")
        self._asking = asking
        self._seen: dict[object, Any] = {}
        self._loaded: dict[str, list[dict[str, Any]]] | None = None

    def asked(self, path: str, **arguments: str) -> Any:
        """
        Return the data that an endpoint of the API answers with, asked once.

        Raises:
            CantAskError: it has none.
        """
        key = (path, *sorted(arguments.items()))
        if key not in self._seen:
            self._seen[key] = json_of(self._asking.get(with_query(f"{self._url}/api/v1/{path}", **arguments)))
        return self._seen[key]

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Return the labels and the value of each element of an expression's answer."""
        return [(one["metric"], float(one["value"][1])) for one in self.asked("query", query=expression)["result"]]

    def names(self) -> Iterable[str]:
        """Return the names of all series."""
        return list(self.asked("label/__name__/values"))

    def rows(self, selector: Selector, labels: Iterable[str]) -> list[dict[str, str]]:
        """Return the combinations of these labels that the selected series have."""
        wanted = ", ".join(sorted({one for one in labels if one.isidentifier()}))
        chosen = tuple(Matcher(one.label, "=~", ".+") if one.is_variable else one for one in selector.matchers)
        return [row for row, _ in self.query(f"count by ({wanted}) ({Selector(selector.name, chosen)})")]

    def label_names(self, name: str) -> set[str]:
        """Return every label that series of that name have."""
        return set(self.asked("labels", **{"match[]": name})) - {"__name__"} if name else set()

    def without(self, name: str) -> str:
        """Return why there is no recorded series of that name now, where a loaded rule records it."""
        if name not in self._recorded():
            return ""
        return "recorded, and without a value now: what it is made of isn't there, or no request came"

    def _recorded(self) -> set[str]:
        return {rule["name"] for rules in self.loaded().values() for rule in rules if rule["type"] == "recording"}

    def loaded(self) -> _Rules:
        """Return the rules that are loaded, by group, each with its group's numbers."""
        if self._loaded is None:
            self._loaded = {}
            for group in self.asked("rules")["groups"]:
                self._loaded.setdefault(group["name"], []).extend(
                    {**rule, "group": group} for rule in group.get("rules") or ()
                )
        return self._loaded

    def look(self, job: str | None, groups: _Rules, most: int, remarks: Remarks, *, is_exact: bool) -> None:
        """
        Say what is wrong with rules, targets, Alertmanagers and the number of label sets.

        Args:
            job: the one job that matters; None for every instrumented one.
            groups: the rules that should be loaded.
            most: the cap on label sets.
            remarks: where to say it.
            is_exact: whether rules that ask something else than these are wrong.
        """
        looks: tuple[Callable[[], None], ...] = (
            lambda: self._look_at_rules(groups, FINDING if is_exact else NOTE, remarks),
            lambda: self._look_at_targets(job, remarks),
            lambda: self._look_at_alertmanagers(remarks),
            lambda: self._look_at_label_sets(job, most, remarks),
        )
        for look in looks:
            try:
                look()
            except CantAskError as error:
                remarks.add(NOTE, self._url, f"can't be asked for everything: {error}")

    def _look_at_rules(self, groups: _Rules, level: str, remarks: Remarks) -> None:
        loaded = self.loaded()
        for name, rules in groups.items():
            if name not in loaded:
                remarks.add(FINDING, f"group {name}", "not loaded")
            for rule in _others(name, rules, loaded.get(name, []), level, remarks):
                with suppress(CantAskError):  # It is younger than 2.42 where it knows how to format.
                    self._read(rule, remarks)
            _look_at_health(name, loaded.get(name, []), remarks)
        ours = {name: _service(name) for name in loaded if name.startswith("scaleobs.")}
        both = {service for service in ours.values() if service}
        if both and None in ours.values():
            what = f"rules for every service are loaded beside those for {listed(both)}: alerts come twice"
            remarks.add(FINDING, "groups scaleobs.*", what)

    def _read(self, rule: dict[str, Any], remarks: Remarks) -> None:
        try:
            self.asked("format_query", query=str(rule["expr"]))
        except RefusedError as error:
            remarks.add(FINDING, title(rule), f"Prometheus can't read it: {error}", [title(rule)])

    def _look_at_targets(self, job: str | None, remarks: Remarks) -> None:
        # A service that is down shows nothing now.
        seen = self.query(f"count by (job) (last_over_time({catalog.INFO.name}[1d]))")
        jobs = {row.get("job", "") for row, _ in seen}
        if not job and not jobs:
            remarks.add(FINDING, catalog.INFO.name, "no target has shown it for a day: no service is instrumented")
        wanted = {job} if job else jobs
        targets = self.asked("targets", state="active")["activeTargets"]
        of_jobs = [one for one in targets if one["labels"].get("job") in wanted]
        if job and not of_jobs:
            others = listed({one["labels"].get("job", "") for one in targets})
            remarks.add(FINDING, f"job {job}", f"has no target; there are jobs {others}")
        for one in of_jobs:
            if one["health"] != "up":
                why = one.get("lastError") or "not scraped so far"
                remarks.add(FINDING, f"target {one['scrapeUrl']}", f"is {one['health']}: {why}")

    def _look_at_alertmanagers(self, remarks: Remarks) -> None:
        if not self.asked("alertmanagers")["activeAlertmanagers"]:
            remarks.add(FINDING, "Alertmanager", "none is known to Prometheus: alerts fire and nobody is told")

    def _look_at_label_sets(self, job: str | None, most: int, remarks: Remarks) -> None:
        of = (Matcher("job", "=", job),) if job else ()
        full = f"topk(10, count by (job, instance) ({_histograms(of)})) >= {most * NEAR:g}"
        for labels, value in self.query(full):
            of_one = tuple(Matcher(name, "=", labels.get(name, "")) for name in ("job", "instance"))
            routes = self.query(f"topk(3, count by (route) ({_histograms(of_one)}))")
            what = near(int(value), most, [row.get("route", "") for row, _ in routes])
            remarks.add(FINDING, f"{labels.get('job')} {labels.get('instance')}", what)
        for labels, value in self.query(f"topk(10, {Selector(catalog.DROPPED.name, of)} > 0)"):
            remarks.add(FINDING, f"{labels.get('job')} {labels.get('instance')}", dropped(value))


def _others(
    name: str, rules: list[dict[str, Any]], loaded: list[dict[str, Any]], level: str, remarks: Remarks
) -> list[dict[str, Any]]:
    """Return the rules that are not loaded as they are, having said so of a group that is loaded."""
    left, others = list(loaded), []
    for rule in rules:
        named = [one for one in left if one["name"] == rule.get("alert", rule.get("record"))]
        alike = [one for one in named if same(one["query"], str(rule["expr"]))]
        for one in (alike or named)[:1]:
            left.remove(one)
        others += [] if alike else [rule]
        if named and not alike:
            remarks.add(
                level, title(rule), f"the loaded group {name} asks something else: it is older, or made otherwise"
            )
        elif loaded and not named:
            remarks.add(FINDING, title(rule), f"not in the loaded group {name}: load these rules anew")
    return others


def _look_at_health(name: str, loaded: list[dict[str, Any]], remarks: Remarks) -> None:
    for one in loaded:
        if one["health"] == "err" or one.get("lastError"):
            remarks.add(FINDING, f"rule {one['name']}", f"fails: {one.get('lastError') or 'no reason given'}")
        elif one["health"] != "ok":
            remarks.add(NOTE, f"rule {one['name']}", "not evaluated so far")
    if loaded:
        group = loaded[0]["group"]
        takes, every = float(group.get("evaluationTime") or 0), float(group["interval"])
        if takes > every * NEAR:
            what = f"takes {takes:.3g} s to evaluate, every {every:g} s: soon evaluations will be missed"
            remarks.add(FINDING, f"group {name}", what)


def _service(group: str) -> str | None:
    return group.removeprefix("scaleobs.").rpartition(".")[0] or None


def _histograms(of: tuple[Matcher, ...]) -> str:
    """Return one series for each label set of a service, whichever kind of histogram Prometheus keeps."""
    return f"{Selector(f'{catalog.DURATION.name}_count', of)} or {Selector(catalog.DURATION.name, of)}"
