"""The fields of objects whose class declares them: dataclasses, attrs, pydantic, msgspec."""

from __future__ import annotations

import sys
from typing import Any

_DECLARED = ("__dataclass_fields__", "__attrs_attrs__", "__pydantic_fields__", "__struct_fields__")


def has_fields(value: Any) -> bool:
    """Return whether the class of an object declares its fields, and has no text of its own."""
    kind: Any = type(value)
    if kind.__str__ is not object.__str__ and not hasattr(kind, "__pydantic_fields__"):
        return False
    return any(hasattr(kind, declared) for declared in _DECLARED)


def fields_of(value: Any) -> dict[str, Any]:
    """Return the fields of such an object by name, without those that its `repr` leaves out."""
    kind = type(value)
    if hasattr(kind, "__dataclass_fields__"):
        names = [field.name for field in sys.modules["dataclasses"].fields(value) if field.repr]
    elif hasattr(kind, "__attrs_attrs__"):
        names = [field.name for field in kind.__attrs_attrs__ if field.repr]
    elif hasattr(kind, "__pydantic_fields__"):
        names = [name for name, field in kind.__pydantic_fields__.items() if field.repr]
        names += getattr(value, "__pydantic_extra__", None) or ()
    else:
        names = list(kind.__struct_fields__)
    return {name: getattr(value, name, None) for name in names}
