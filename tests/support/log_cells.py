"""
Applications of several frameworks, with logging configured in several ways.

As a program it receives the name of a framework, tries each configuration in a process of its own, and writes what came
out as JSON. As a module it has `app`, which the variable `LOG_CELL` describes, for a server.
"""

from __future__ import annotations

import itertools
import json
import logging
import logging.config
import os
import sys
import tempfile
import traceback
from pathlib import Path

import scaleobs

EXPORTED = []

PLAIN = {
    "version": 1,
    "formatters": {"plain": {"format": "TEXT %(name)s %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "plain", "stream": "ext://sys.stdout"}},
    "root": {"handlers": ["console"], "level": "INFO"},
}


def nothing():
    """Configure nothing."""


def by_dict_config():
    """Configure a console as the documentation of logging does; loggers that exist are disabled by default."""
    logging.getLogger("uvicorn.error")
    logging.config.dictConfig(PLAIN)


def by_basic_config():
    """Configure a console on stderr."""
    logging.basicConfig(level=logging.INFO, format="TEXT %(name)s %(message)s")


def by_opentelemetry():
    """Export records, and configure no console."""
    from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
    from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor

    class Exporter:
        def export(self, batch):
            EXPORTED.extend(str(one.log_record.body) for one in batch)

        def shutdown(self):
            pass

        def force_flush(self, timeout=0):
            pass

    provider = LoggerProvider()
    provider.add_log_record_processor(SimpleLogRecordProcessor(Exporter()))
    logging.getLogger().addHandler(LoggingHandler(logger_provider=provider))


CONFIGURATIONS = {
    "nothing": nothing,
    "default": nothing,
    "dictConfig": by_dict_config,
    "basicConfig": by_basic_config,
    "opentelemetry": by_opentelemetry,
}


def log(framework):
    """Log one record of the application, of its framework, and of its server."""
    logging.getLogger("shop").warning("by the application")
    framework.warning("by the framework")
    logging.getLogger("uvicorn.error").warning("by the server")


def flask(configuration):
    """Return an application, which has used the framework's logger before if that is the configuration to try."""
    import flask

    app = flask.Flask("shop")
    if configuration == "default":
        app.logger.warning("early")
    app.get("/hello")(lambda: (log(app.logger), "hello")[1])
    return app


def quart(configuration):
    import quart

    app = quart.Quart("shop")
    if configuration == "default":
        app.logger.warning("early")

    @app.get("/hello")
    async def hello():
        log(app.logger)
        return "hello"

    return app


def django(configuration):
    from django.conf import settings
    from django.http import HttpResponse
    from django.urls import path

    def hello(request):
        log(logging.getLogger("django.request"))
        return HttpResponse("hello")

    urls = type(sys)("urls")
    urls.urlpatterns = [path("hello", hello)]
    own = {"LOGGING": PLAIN | {"disable_existing_loggers": False}} if configuration == "dictConfig" else {}
    settings.configure(
        DEBUG=configuration == "default", ALLOWED_HOSTS=["*"], ROOT_URLCONF=urls, SECRET_KEY="tests", **own
    )
    import django
    from django.core.wsgi import get_wsgi_application

    django.setup()
    return get_wsgi_application()


def fastapi(configuration):
    import fastapi

    app = fastapi.FastAPI()

    @app.get("/hello")
    async def hello():
        log(logging.getLogger("fastapi"))
        return "hello"

    return app


def litestar(configuration):
    import litestar

    @litestar.get("/hello")
    async def hello() -> str:
        log(logging.getLogger("litestar"))
        return "hello"

    own = {} if configuration == "default" else {"logging_config": None}
    return litestar.Litestar([hello], **own)


def falcon(configuration):
    import falcon

    class Hello:
        def on_get(self, request, response):
            log(logging.getLogger("falcon"))
            response.text = "hello"

    app = falcon.App()
    app.add_route("/hello", Hello())
    return app


def mcp(configuration):
    from mcp.server.mcpserver import MCPServer

    app = MCPServer("shop").streamable_http_app()

    async def hello(request):
        from starlette.responses import PlainTextResponse

        log(logging.getLogger("mcp.server"))
        return PlainTextResponse("hello")

    app.add_route("/hello", hello)
    return app


def asgi(configuration):
    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            raise RuntimeError("no lifespan")
        log(logging.getLogger("plain"))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello"})

    return app


FRAMEWORKS = {one.__name__: one for one in (flask, django, fastapi, litestar, quart, falcon, mcp, asgi)}


def made(framework, configuration, log_format):
    """Return an instrumented application in a configuration."""
    CONFIGURATIONS[configuration]()
    app = FRAMEWORKS[framework](configuration)
    return scaleobs.instrument(app, service="shop", log_format=log_format, route=lambda _: "/hello")


def call(app, framework):
    """Request a page of the application."""
    from support.exchanges import asgi as asgi_call
    from support.exchanges import wsgi as wsgi_call

    answer = (wsgi_call if framework in ("flask", "django", "falcon") else asgi_call)(app, path="/hello")
    assert answer.status == 200, answer


def tried(framework, configuration, log_format):
    """Return what a process of its own writes and exports: stdout, stderr, and the exported records."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, name) for name in ("stdout", "stderr", "exported")]
        child = os.fork()
        if not child:
            code = 1
            try:
                for number, path in enumerate(paths[:2], 1):
                    os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
                app = made(framework, configuration, log_format)
                call(app, framework)
                scaleobs.configure_logging(log_format="off")
                paths[2].write_text(json.dumps(EXPORTED))
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                logging.shutdown()
                sys.stdout.flush()
                sys.stderr.flush()
                _stop_listeners()
                os._exit(code)
        os.waitpid(child, 0)
        return [path.read_text() if path.exists() else "" for path in paths]


def _stop_listeners():
    """Wait until the threads of queues, which end with the process, have written everything."""
    import gc
    from logging.handlers import QueueListener

    for one in gc.get_objects():
        if isinstance(one, QueueListener):
            one.stop()


if __name__ == "__main__":
    name = sys.argv[1]

    import scaleobs.logs

    scaleobs.instrument  # noqa: B018 - Loads it before the processes are forked.
    cells = itertools.product(CONFIGURATIONS, ("auto", "json"))
    __import__({"asgi": "asyncio", "mcp": "mcp.server.mcpserver"}.get(name, name))
    json.dump({",".join(cell): tried(name, *cell) for cell in cells}, sys.stdout)
elif "LOG_CELL" in os.environ:
    app = made(*os.environ["LOG_CELL"].split(","))
