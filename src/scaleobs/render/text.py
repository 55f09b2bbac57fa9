"""From plain data to text: the only place that knows the formats of Prometheus, Kubernetes and Grafana."""

from __future__ import annotations

import json
import re
from textwrap import indent
from typing import TYPE_CHECKING, Any

from scaleobs.render.resources import MOST_BYTES, applied_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scaleobs.render.rules import Group


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
