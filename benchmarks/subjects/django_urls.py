"""The routes of the Django application, which Django imports by name."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse
from django.urls import path


def _item(_request: Any, item_id: int) -> HttpResponse:
    return HttpResponse(f"item {item_id}")


urlpatterns = [path("items/<int:item_id>", _item)]
