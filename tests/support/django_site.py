"""A Django site for the tests of one process; Django allows no second configuration."""

from __future__ import annotations

import django
from django.conf import settings
from django.http import HttpResponse
from django.urls import include, path, re_path

REFUSED = "HTTP_X_REFUSE"


def refuse(get_response):
    """Answer 401 before any routing if the client requests it."""

    def middleware(request):
        return HttpResponse(status=401) if REFUSED in request.META else get_response(request)

    return middleware


if not settings.configured:
    settings.configure(
        ALLOWED_HOSTS=["*"],
        APPEND_SLASH=True,
        DEBUG=False,
        LOGGING_CONFIG=None,
        LANGUAGES=[("en-us", "English"), ("de", "German"), ("fr", "French")],
        MIDDLEWARE=[
            "support.django_site.refuse",
            "django.middleware.locale.LocaleMiddleware",
            "django.middleware.common.CommonMiddleware",
        ],
        ROOT_URLCONF="support.django_site",
        SECRET_KEY="only for tests",
        USE_TZ=True,
    )
    django.setup()

from django.conf.urls.i18n import i18n_patterns  # noqa: E402 - Needs the settings, as the next ones do.
from django.utils.translation import gettext_lazy  # noqa: E402
from django.views import View  # noqa: E402
from django.views.decorators.http import require_POST  # noqa: E402


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


class Thing(View):
    """A class as a view."""

    def put(self, request):
        """Answer."""
        return HttpResponse("put")


urlpatterns = [
    path("", hello),
    path("items/<int:item_id>/", hello),
    path("async/<x>/", hello_async),
    path("api/", include([path("v1/<slug:name>/", hello), re_path(r"^old/(?P<year>[0-9]{4})/$", hello)])),
    re_path(r"^slug/(?P<slug>[^/]+)/$", hello),
    re_path(r"^end\Z", hello),
    path("only/", require_POST(hello)),
    path("boom/", boom),
    path("thing/", Thing.as_view()),
    path("here/", include(([path("<int:n>/", hello, name="n")], "shop"), namespace="here")),
    path("there/", include(([path("<int:n>/", hello, name="n")], "shop"), namespace="there")),
    path("day/", include([path(gettext_lazy("Monday"), hello)])),  # Django's own catalogue has the days.
    *i18n_patterns(path("news/<int:n>/", hello), path(gettext_lazy("Tuesday"), hello)),
]
