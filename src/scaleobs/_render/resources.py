"""The resources of Kubernetes that rules are put in: their names, their labels, and how large they may be."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

MOST_BYTES = 262_144
"""What all annotations of a resource may have; `kubectl apply` keeps it in one, unless it is `--server-side`."""

_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", re.ASCII)
_WORD = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", re.ASCII)
_DOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*", re.ASCII)
_LONGEST_DOMAIN = 253
_ANNOTATION = "kubectl.kubernetes.io/last-applied-configuration"


def metadata(name: str, namespace: str | None = None, labels: Sequence[str] = ()) -> dict[str, object]:
    """
    Return what identifies a resource.

    Args:
        name: its name.
        namespace: where it lives; None leaves that to whoever applies it.
        labels: each as `release=prometheus`; of two with one name the last counts.

    Raises:
        ValueError: Kubernetes would refuse the namespace or a label.
    """
    data: dict[str, object] = {"name": name}
    if namespace is not None:
        if not _NAMESPACE.fullmatch(namespace):
            msg = (
                f"The namespace {namespace!r} can't be one: give 1 to 63 lower-case letters, digits and '-', "
                f"beginning and ending with a letter or a digit, e.g. monitoring."
            )
            raise ValueError(msg)
        data["namespace"] = namespace
    if labels:
        data["labels"] = dict(map(_label, labels))
    return data


def applied_bytes(resource: Mapping[str, object]) -> int:
    """Return how many bytes of annotations a resource has once `kubectl apply` has put it into whatever namespace."""
    # JSON on one line, with an empty `annotations`, `<` as `\u003c`, and a namespace of 63 letters at most.
    kept = json.dumps(resource, ensure_ascii=False, separators=(",", ":"))
    size = len(kept.encode()) + 5 * sum(map(kept.count, "<>&"))
    return size + len(f'"annotations":{{}},"namespace":"{"":63}",\n{_ANNOTATION}')


def _label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    prefix, slash, name = key.rpartition("/")
    is_prefixed_well = not slash or (len(prefix) <= _LONGEST_DOMAIN and _DOMAIN.fullmatch(prefix))
    if not (equals and is_prefixed_well and _WORD.fullmatch(name) and (not value or _WORD.fullmatch(value))):
        msg = (
            f"The label {text!r} can't be one: write it like release=prometheus, name and value of at most 63 letters, "
            f"digits, '-', '_' and '.', beginning and ending with a letter or a digit. A domain and '/' may stand "
            f"before the name; the value may be empty."
        )
        raise ValueError(msg)
    return key, value
