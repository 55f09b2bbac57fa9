"""One application for each framework, whose handlers raise; the framework or a handler of it answers."""

from __future__ import annotations

import sys


class RefusedError(Exception):
    """An exception with a handler of the application: its text is the status."""


def fail(path):
    """Do what the path names; return for `/fine`."""
    if path.endswith("/raise"):
        raise RuntimeError("no handler")
    if path.endswith(("/own503", "/own409")):
        raise RefusedError(path[-3:])


PATHS = ("raise", "own503", "own409", "fine")


def flask_app(**settings):
    """Return an application of Flask."""
    from flask import Flask, abort, request

    app = Flask("shop")
    app.config.update(settings)

    @app.get("/<what>")
    def view(what):
        fail(request.path)
        return abort(404) if what == "gone" else "fine"

    app.register_error_handler(RefusedError, lambda error: (str(error), int(str(error))))
    return app


def quart_app():
    """Return the same by Quart."""
    from quart import Quart, abort, request

    app = Quart("shop")

    @app.get("/<what>")
    async def view(what):
        fail(request.path)
        return abort(404) if what == "gone" else "fine"

    @app.errorhandler(RefusedError)
    async def refused(error):
        return str(error), int(str(error))

    return app


def litestar_app(**settings):
    """Return the same by Litestar."""
    from litestar import Litestar, Request, Response, get
    from litestar.exceptions import NotFoundException

    def view(request):
        fail(request.url.path)
        if request.path_params["what"] == "gone":
            raise NotFoundException
        return "fine"

    def refused(_request, error):
        return Response(str(error), status_code=int(str(error)))

    view.__annotations__ = {"request": Request, "return": str}
    handler = get("/{what:str}", sync_to_thread=False)(view)
    return Litestar([handler], exception_handlers={RefusedError: refused}, **settings)


def falcon_app(*, is_asgi=False):
    """Return the same by Falcon."""
    import falcon
    import falcon.asgi

    class Resource:
        def on_get(self, req, resp, what):
            fail(req.path)
            if what == "gone":
                raise falcon.HTTPNotFound
            resp.text = "fine"

    class AsyncResource:
        async def on_get(self, req, resp, what):
            Resource().on_get(req, resp, what)

    async def refused_async(req, resp, error, params):
        refused(req, resp, error, params)

    def refused(_req, resp, error, _params):
        resp.status = int(str(error))

    app = falcon.asgi.App() if is_asgi else falcon.App()
    app.add_route("/{what}", AsyncResource() if is_asgi else Resource())
    app.add_error_handler(RefusedError, refused_async if is_asgi else refused)
    return app


def pyramid_app():
    """Return the same by Pyramid; its own view of exceptions answers `RuntimeError`."""
    from pyramid.config import Configurator
    from pyramid.httpexceptions import HTTPNotFound
    from pyramid.response import Response

    def view(request):
        fail(request.path)
        if request.matchdict["what"] == "gone":
            raise HTTPNotFound
        return Response("fine")

    def refused(error, _request):
        return Response(str(error), status=int(str(error)))

    def failed(_error, _request):
        return Response("sorry", status=500)

    config = Configurator()
    config.add_route("what", "/{what}")
    config.add_view(view, route_name="what")
    config.add_exception_view(refused, context=RefusedError)
    config.add_exception_view(failed, context=RuntimeError)
    return config.make_wsgi_app()


def starlette_app():
    """Return the same by Starlette."""
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    async def view(request):
        fail(request.url.path)
        if request.path_params["what"] == "gone":
            raise HTTPException(404)
        return PlainTextResponse("fine")

    def refused(_request, error):
        return PlainTextResponse(str(error), status_code=int(str(error)))

    return Starlette(routes=[Route("/{what}", view)], exception_handlers={RefusedError: refused})


def fastapi_app():
    """Return the same by FastAPI."""
    from fastapi import FastAPI, HTTPException, Request
    from fastapi.responses import PlainTextResponse

    app = FastAPI()

    @app.get("/{what}")
    def view(what: str):
        fail(f"/{what}")
        if what == "gone":
            raise HTTPException(404)
        return "fine"

    @app.exception_handler(RefusedError)
    async def refused(_request: Request, error: RefusedError):
        return PlainTextResponse(str(error), status_code=int(str(error)))

    return app


def bottle_app():
    """Return the same by Bottle, whose handlers are by status only."""
    import bottle

    app = bottle.Bottle()

    @app.get("/<what>")
    def view(what):
        fail(f"/{what}")
        return bottle.abort(404) if what == "gone" else "fine"

    return app


def plain_wsgi_app(environ, start_response):
    """Answer an exception as PEP 3333 describes."""
    path = environ["PATH_INFO"]
    try:
        fail(path)
    except RuntimeError:
        start_response("500 Internal Server Error", [], sys.exc_info())
        return [b"sorry"]
    except RefusedError as error:
        start_response(f"{error} X", [], sys.exc_info())
        return [b"sorry"]
    start_response("404 Not Found" if path == "/gone" else "200 OK", [])
    return [b"fine"]


def django_view(request, what):
    """Do what the path names."""
    from django.http import Http404, HttpResponse

    fail(request.path)
    if what == "gone":
        raise Http404
    return HttpResponse("fine")


class AnswersRefused:
    """A middleware of Django, which answers an exception."""

    sync_capable = async_capable = True

    def __new__(cls, get_response):
        """Return a function of the kind of the next one."""
        from asgiref.sync import iscoroutinefunction, markcoroutinefunction

        self = super().__new__(cls)
        self.get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)
        return self

    def __call__(self, request):
        """Pass on."""
        return self.get_response(request)

    def process_exception(self, _request, error):
        """Answer."""
        from django.http import HttpResponse

        return HttpResponse(str(error), status=int(str(error))) if isinstance(error, RefusedError) else None


def django_app(*, is_asgi=False):
    """Return a handler of the site of this module; the settings are those of `django_site`, with two overridden."""
    from django.core.asgi import get_asgi_application
    from django.core.wsgi import get_wsgi_application
    from django.test import override_settings

    from support import django_site  # noqa: F401 - Configures Django.

    overridden = override_settings(
        ROOT_URLCONF="support.failing_site", MIDDLEWARE=["support.failing_apps.AnswersRefused"]
    )
    overridden.enable()
    handler = get_asgi_application() if is_asgi else get_wsgi_application()
    return handler, overridden.disable
