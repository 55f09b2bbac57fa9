"""The rendered files, as text."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from textwrap import indent
from typing import TYPE_CHECKING, Any, Unpack

from scaleobs._render.dashboards import dashboard, file_name
from scaleobs._render.durations import Duration
from scaleobs._render.links import resource_name
from scaleobs._render.overrides import number, to_flag
from scaleobs._render.resources import MOST_BYTES, applied_bytes, metadata
from scaleobs._render.rules import Group, Request, RuleOptions, rules
from scaleobs.objectives import Availability, Latency

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scaleobs._render.rules import Group


def prometheus_rules(groups: Sequence[Group], header: str) -> str:
    """Return the groups as a rule file of Prometheus."""
    return f"{comment(header)}groups:\n{_groups(groups)}"


def prometheus_rule_resource(groups: Sequence[Group], header: str, metadata: Mapping[str, object]) -> str:
    """Return the groups as a PrometheusRule, which the Prometheus Operator loads."""
    resource = {"apiVersion": "monitoring.coreos.com/v1", "kind": "PrometheusRule", "metadata": metadata}
    size = applied_bytes({**resource, "spec": {"groups": [group.data() for group in groups]}})
    if size > MOST_BYTES:
        header += f"\nIt has more than the {MOST_BYTES:,} bytes that kubectl apply can keep: give it --server-side."
    return f"{comment(header)}{yaml_text(resource)}spec:\n  groups:\n{indent(_groups(groups), '  ')}"


def config_map(groups: Sequence[Group], header: str, metadata: Mapping[str, object]) -> str:
    """
    Return the groups as a ConfigMap with one rule file of Prometheus, which has the ConfigMap's name and `.yaml`.

    Raises:
        ValueError: it would be larger than `kubectl apply` can keep.
    """
    resource = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}
    name, file = f"{metadata['name']}.yaml", prometheus_rules(groups, header)
    size = applied_bytes({**resource, "data": {name: file}})
    if size > MOST_BYTES:
        msg = (
            f"The ConfigMap would take {size:,} bytes, and kubectl apply can keep {MOST_BYTES:,}: give fewer "
            f"objectives of routes, or write --format prometheus for kubectl create configmap --from-file."
        )
        raise ValueError(msg)
    return f"{comment(header)}{yaml_text(resource)}data:\n  {name}: |\n{indent(file, '    ')}"


def for_helm(text: str) -> str:
    """Return what Helm makes that text of: what looks like a template of its own becomes a string in one."""
    # A raw string ends at the next backquote, so none may be inside; the two braces alone are enough then.
    return re.sub(r"\{\{(?:[^`{}]*\}\})?", r"{{`\g<0>`}}", text)


def json_text(data: Mapping[str, object]) -> str:
    """Return the data as JSON for people: two spaces, keys in the order they were given."""
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


def yaml_text(data: object) -> str:
    """Return the data as YAML: keys in the order they were given, several lines as a literal block."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """A dumper that writes PromQL as people do and indents lists."""

        def increase_indent(self, flow: bool = False, indentless: bool = False) -> Any:  # noqa: ARG002
            """Indent every list, which PyYAML leaves at its key's level."""
            return super().increase_indent(flow, False)

        def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
            """Repeat equal data: people don't read anchors."""
            return True

    Dumper.add_representer(
        str,
        lambda dumper, text: dumper.represent_scalar(
            "tag:yaml.org,2002:str", text, style="|" if "\n" in text else None
        ),
    )
    text: str = yaml.dump(data, Dumper=Dumper, sort_keys=False, width=1000, allow_unicode=True)
    return text


def comment(words: str) -> str:
    """Return the lines as a comment."""
    return indent(f"{words}\n", "# ", lambda _: True).replace("# \n", "#\n")


def _groups(groups: Sequence[Group]) -> str:
    return "\n".join(indent(comment(group.about) + yaml_text([group.data()]), "  ") for group in groups)


if TYPE_CHECKING:
    from scaleobs.objectives import Objective

FORMATS = ("prometheus", "prometheusrule", "configmap")

_FLAGS = {
    "app": "--app",
    "config": "--config",
    "service": "--service",
    "job": "--job",
    "objectives": "--slo",
    "window_days": "--window",
    "scrape_interval": "--scrape-interval",
    "overrides": "--set",
    "disabled": "--disable",
    "runbook_url": "--runbook-url",
    "dashboard_url": "--dashboard-url",
    "time_scale": "--time-scale",
    "format_": "--format",
    "namespace": "--namespace",
    "labels": "--label",
    "is_helm": "--helm",
}
_DEFAULTS = {"window_days": 30, "scrape_interval": 30, "time_scale": 1, "format_": "prometheus"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """
    How rules are written.

    Attributes:
        format_: `prometheus`, a rule file; `prometheusrule`, the Prometheus Operator's resource; or `configmap`, a
            ConfigMap with a rule file in it.
        namespace: where a resource lives; None leaves that to whoever applies it.
        labels: those of a resource, each as `release=prometheus`.
        is_helm: the text is for the templates of a Helm chart.

    Raises:
        ValueError: the format isn't known, or a rule file would have a namespace or labels.
    """

    format_: str = "prometheus"
    namespace: str | None = None
    labels: Sequence[str] = ()
    is_helm: bool = False

    def __post_init__(self) -> None:
        if self.format_ not in FORMATS:
            msg = f"The format {self.format_!r} is not known: give one of {', '.join(FORMATS)}."
            raise ValueError(msg)
        if self.format_ == "prometheus" and (self.namespace is not None or self.labels):
            what = f"namespace {self.namespace!r}" if self.namespace is not None else f"label {self.labels[0]!r}"
            msg = (
                f"The {what} is for a resource of Kubernetes, and a rule file of Prometheus is none: "
                f"give --format prometheusrule or configmap."
            )
            raise ValueError(msg)


def rules_text(
    service: str | None = None,
    job: str | None = None,
    objectives: Sequence[Objective] = (),
    time_scale: float = 1,
    *,
    format_: str = "prometheus",
    namespace: str | None = None,
    labels: Sequence[str] = (),
    is_helm: bool = False,
    **options: Unpack[RuleOptions],
) -> str:
    """
    Return the rules of one service, or of every instrumented service, as a file's text.

    Args:
        service: as for `rules.plan`, like the next three.
        job: see there.
        objectives: see there.
        time_scale: see there.
        format_: as for `Output`, like the next three.
        namespace: see there.
        labels: see there.
        is_helm: see there.
        options: the other arguments of `rules.plan`.

    Raises:
        ValueError: an argument is out of range or isn't known.
    """
    output = Output(format_=format_, namespace=namespace, labels=labels, is_helm=is_helm)
    request: Request = {"service": service, "job": job, "objectives": objectives, "time_scale": time_scale, **options}
    return rules_of([request], output, command({**request, **asdict(output)}))


def rules_of(services: Sequence[Request], output: Output, command_line: str) -> str:
    """
    Return the rules of several services as one file's text; a resource for each where they are resources.

    Args:
        services: whom to watch, and for what.
        output: how the rules are written.
        command_line: the command that makes the same text again.

    Raises:
        ValueError: an argument is out of range, or two services would have rules of one name.
    """
    header = f"Generated by: {command_line}\nChange that command rather than this file."
    named: dict[str, list[Group]] = {}
    for one in services:
        called = one.get("service") or one.get("job") or ""
        groups, name = rules(**one), resource_name(f"scaleobs-{called}")
        if name in named:
            msg = (
                f"The rules of {called!r} would be called {name!r}, as those of another service are: write them apart."
            )
            raise ValueError(msg)
        named[name] = groups
    if output.format_ == "prometheus":
        written = prometheus_rules([group for groups in named.values() for group in groups], header)
    else:
        write = config_map if output.format_ == "configmap" else prometheus_rule_resource
        written = "---\n".join(
            write(groups, header, metadata(name, output.namespace, output.labels)) for name, groups in named.items()
        )
    return for_helm(written) if output.is_helm else written


def command(requested: Mapping[str, object]) -> str:
    """Return the command line that asks for these arguments of the functions here, and for no default, nor nothing."""
    words = ["scaleobs", "rules"]
    # A file may ask for something else than the default, which then has to be asked for again.
    defaults = {} if requested.get("config") else _DEFAULTS
    for key, flag in _FLAGS.items():
        value = requested.get(key, defaults.get(key))
        if value == defaults.get(key):
            continue
        if value is True:
            words.append(flag)
        elif isinstance(value, list | tuple):
            words += [word for one in value for word in (flag, _flag_value(key, one))]
        elif value is not None and value is not False:
            words += [flag, _flag_value(key, value)]
    return shlex.join(words)


def dashboard_texts(service: str | None = None, job: str | None = None) -> dict[str, str]:
    """
    Return the dashboard of one service, or of every instrumented service, by file name.

    Raises:
        ValueError: a name can't be a job's.
    """
    return {file_name(service, job): json_text(dashboard(service, job))}


def _flag_value(key: str, value: object) -> str:
    if isinstance(value, Availability | Latency):
        return to_flag(value)
    if key == "scrape_interval" and isinstance(value, int):
        return str(Duration(value * 1000))
    return number(value) if isinstance(value, int | float) else str(value)
