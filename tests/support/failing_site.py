"""The URL patterns of Django's site in `failing_apps`."""

from __future__ import annotations

from django.urls import path

from support.failing_apps import django_view

urlpatterns = [path("<what>", django_view)]
