"""A Django site for the tests of one process; Django allows no second configuration."""

from __future__ import annotations

import django
from django.conf import settings
from django.http import HttpResponse
from django.urls import include, path, re_path

REFUSED = "HTTP_X_REFUSE"


def refuse(get_response):
    """Answer 401 before any routing where the client asks for it."""

    def middleware(request):
        return HttpResponse(status=401) if REFUSED in request.META else get_response(request)

    return middleware


if not settings.configured:
    settings.configure(
        ALLOWED_HOSTS=["*"],
        APPEND_SLASH=True,
        DEBUG=False,
        LOGGING_CONFIG=None,
        MIDDLEWARE=["django_site.refuse", "django.middleware.common.CommonMiddleware"],
        ROOT_URLCONF="django_site",
        SECRET_KEY="only for tests",
        USE_TZ=True,
    )
    django.setup()

from django.views.decorators.http import require_POST  # noqa: E402 - Needs the settings.


def hello(request, **_):
    """Answer."""
    return HttpResponse("hello")


async def hello_async(request, **_):
    """Answer."""
    return HttpResponse("hello")


def boom(request):
    """Fail."""
    msg = "boom"
    raise RuntimeError(msg)


urlpatterns = [
    path("", hello),
    path("items/<int:item_id>/", hello),
    path("async/<x>/", hello_async),
    path("api/", include([path("v1/<slug:name>/", hello), re_path(r"^old/(?P<year>[0-9]{4})/$", hello)])),
    re_path(r"^slug/(?P<slug>[^/]+)/$", hello),
    re_path(r"^end\Z", hello),
    path("only/", require_POST(hello)),
    path("boom/", boom),
]
