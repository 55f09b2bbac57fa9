"""What the Prometheus Operator accepts as a PrometheusRule, as strictly as `kubectl` asks it."""

_DURATION = {"type": "string", "pattern": r"^(([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?)$", "minLength": 2}
_WORDS = {"type": "object", "additionalProperties": {"type": "string", "minLength": 1}}
PROMETHEUS_RULE = {
    "type": "object",
    "additionalProperties": False,
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "properties": {
        "apiVersion": {"const": "monitoring.coreos.com/v1"},
        "kind": {"const": "PrometheusRule"},
        "metadata": {
            "type": "object",
            "additionalProperties": False,
            "required": ["name"],
            "properties": {"name": {"pattern": r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "maxLength": 253}},
        },
        "spec": {
            "type": "object",
            "additionalProperties": False,
            "required": ["groups"],
            "properties": {
                "groups": {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["name", "interval", "rules"],
                        "properties": {
                            "name": {"type": "string", "minLength": 1},
                            "interval": _DURATION,
                            "rules": {
                                "type": "array",
                                "minItems": 1,
                                "items": {
                                    "type": "object",
                                    "additionalProperties": False,
                                    "required": ["expr"],
                                    "oneOf": [
                                        {"required": ["record"], "not": {"required": ["for"]}},
                                        {"required": ["alert", "for", "labels", "annotations"]},
                                    ],
                                    "properties": {
                                        "record": {"pattern": r"^[a-z_]+:[a-z_]+:[a-z0-9_]+$"},
                                        "alert": {"pattern": r"^[A-Z][A-Za-z]+$"},
                                        "expr": {"type": "string", "minLength": 1},
                                        "for": _DURATION,
                                        "labels": _WORDS,
                                        "annotations": _WORDS,
                                    },
                                },
                            },
                        },
                    },
                }
            },
        },
    },
}
