"""The short way of a request that is counted, has its line, and nothing more; most are like this in production."""

from __future__ import annotations

from collections.abc import Collection, Container
from time import perf_counter

from scaleobs.asgi.http import Told
from scaleobs.asgi.protocol import Application, Receive, Scope, Send, context_of
from scaleobs.exchange import WATCHED
from scaleobs.logs import request_context
from scaleobs.recorder import Recorder


def telling(
    app: Application,
    recorder: Recorder,
    serve_other: Application,
    endpoints: Container[str],
    roots: Collection[str | None],
) -> Application:
    """
    Return the function that serves an application whose requests have lines.

    Args:
        app: the application.
        recorder: what hears of its requests.
        serve_other: serves whatever isn't such a request.
        endpoints: our paths.
        roots: what may stand before them, where something does.
    """
    here, storage = recorder.here, recorder.storage
    plain = storage.plain
    # A call of a method costs twice as much as one of what it is bound to.
    begin, end = request_context.set, request_context.reset

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if (
            not plain[0]
            or scope["type"] != "http"
            or scope["path"] in endpoints
            or (roots and scope.get("root_path") not in roots)
        ):
            await serve_other(scope, receive, send)
            return
        shard = here.shard
        shard.open[0] += 1
        exchange = Told()
        exchange.recorder = recorder
        exchange.request = scope
        exchange.shard = shard
        exchange.server_receive = receive
        exchange.server_send = send
        exchange.stage = WATCHED
        exchange.path = scope["path"]
        exchange.is_gone = False
        exchange.status = exchange.waiting = exchange.span = None
        exchange.begun = perf_counter()
        exchange.context = context = context_of(scope)
        if "trace_id" in context and storage.seeks_traces:
            storage.keep_exemplars()
        token = begin(context)
        try:
            await app(scope, exchange.receive, exchange.send)
        except BaseException as error:
            exchange.raised(error)
            raise
        else:
            exchange.left()
        finally:
            try:  # noqa: SIM105
                end(token)
            except ValueError:  # See `forget_request`, whose call would cost as much.
                pass

    def look() -> None:
        nonlocal plain
        plain = storage.plain

    recorder.on_moved = look
    serve.app = app  # type: ignore[attr-defined] # Who looks for a middleware goes from one `app` to the next.
    return serve
