"""
Django in one file; in a project, the last line is in wsgi.py or asgi.py.

Run: gunicorn django_catalog:application
Try: /books/4/
"""

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path

import scaleobs


def book(request: HttpRequest, book_id: int) -> JsonResponse:
    return JsonResponse({"id": book_id})


urlpatterns = [path("books/<int:book_id>/", book)]

settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="not a secret")

application = scaleobs.instrument(get_wsgi_application(), service="catalog")
