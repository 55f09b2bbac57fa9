"""The strict schema of Kubernetes and the Prometheus Operator for a PrometheusRule or a ConfigMap."""

from collections import Counter

from jsonschema import Draft7Validator

MOST_ANNOTATED, MOST_DATA = 256 * 1024, 1024 * 1024

_DNS_PART = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_DNS = rf"{_DNS_PART}(\.{_DNS_PART})*"
_WORD = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_DURATION = {
    "type": "string",
    "pattern": r"^(0|([0-9]+y)?([0-9]+w)?([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?)$",
    "minLength": 1,
}
_WORDS = {"type": "object", "additionalProperties": {"type": "string", "minLength": 1}}


def _object(required, properties, **more):
    return {"type": "object", "additionalProperties": False, "required": required, "properties": properties, **more}


_METADATA = _object(
    ["name"],
    {
        "name": {"type": "string", "pattern": f"^{_DNS}$", "maxLength": 253},
        "namespace": {"type": "string", "pattern": f"^{_DNS_PART}$", "maxLength": 63},
        "labels": {
            "type": "object",
            "patternProperties": {f"^({_DNS}/)?{_WORD}$": {"type": "string", "pattern": f"^({_WORD})?$"}},
            "additionalProperties": False,
        },
        "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
    },
)
# Beyond the operator's definition, each group has an interval, and each alert has a wait and a description.
_RULE = _object(
    ["expr"],
    {
        "record": {"type": "string", "pattern": r"^[a-z_]+:[a-z_]+:[a-z0-9_]+$"},
        "alert": {"type": "string", "pattern": r"^[A-Z][A-Za-z]+$"},
        "expr": {"type": "string", "minLength": 1},
        "for": _DURATION,
        "keep_firing_for": _DURATION,
        "labels": _WORDS,
        "annotations": _WORDS,
    },
    oneOf=[
        {"required": ["record"], "not": {"anyOf": [{"required": [key]} for key in ("for", "annotations")]}},
        {"required": ["alert", "for", "labels", "annotations"], "not": {"required": ["record"]}},
    ],
)
_GROUP = _object(
    ["name", "interval", "rules"],
    {
        "name": {"type": "string", "minLength": 1},
        "interval": _DURATION,
        "query_offset": _DURATION,
        "limit": {"type": "integer"},
        "partial_response_strategy": {"enum": ["abort", "warn"]},
        "labels": _WORDS,
        "rules": {"type": "array", "minItems": 1, "items": _RULE},
    },
)
PROMETHEUS_RULE = _object(
    ["apiVersion", "kind", "metadata", "spec"],
    {
        "apiVersion": {"const": "monitoring.coreos.com/v1"},
        "kind": {"const": "PrometheusRule"},
        "metadata": _METADATA,
        "spec": _object(["groups"], {"groups": {"type": "array", "minItems": 1, "items": _GROUP}}),
    },
)
CONFIG_MAP = _object(
    ["apiVersion", "kind", "metadata", "data"],
    {
        "apiVersion": {"const": "v1"},
        "kind": {"const": "ConfigMap"},
        "metadata": _METADATA,
        "data": {
            "type": "object",
            "minProperties": 1,
            "patternProperties": {r"^[-._a-zA-Z0-9]{1,253}$": {"type": "string"}},
            "additionalProperties": False,
        },
        "immutable": {"type": "boolean"},
    },
)


def faults(resource):
    """Return what a strict server would refuse a resource for."""
    kind = resource.get("kind")
    schema = {"PrometheusRule": PROMETHEUS_RULE, "ConfigMap": CONFIG_MAP}.get(kind)
    if schema is None:
        return [f"the kind {kind!r} is not known"]
    found = [f"{error.json_path}: {error.message}" for error in Draft7Validator(schema).iter_errors(resource)]
    if found:
        return found
    annotated = resource["metadata"].get("annotations", {})
    if sum(len(text.encode()) for pair in annotated.items() for text in pair) > MOST_ANNOTATED:
        found.append(f"metadata.annotations: Too long: must have at most {MOST_ANNOTATED} bytes")
    if sum(len(text.encode()) for pair in resource.get("data", {}).items() for text in pair) > MOST_DATA:
        found.append(f"data: Too long: must have at most {MOST_DATA} bytes")
    names = Counter(group["name"] for group in resource.get("spec", {}).get("groups", ()))
    return found + [f"spec.groups: Duplicate value: {name}" for name, count in names.items() if count > 1]
