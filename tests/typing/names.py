"""Right uses of every public name. Both type checkers accept this file."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from pathlib import Path
from typing import Any, assert_type

from prometheus_client import CollectorRegistry
from structlog.typing import FilteringBoundLogger

import scaleobs
from scaleobs import (
    ASGIMiddleware,
    Availability,
    Check,
    CheckFailed,
    Latency,
    Observer,
    SettingsError,
    WSGIMiddleware,
    bind_context,
    checks,
    configure_logging,
    get_logger,
    instrument,
    observer_of,
    request_id,
)
from scaleobs.settings import Arguments, LogFormat, Settings

Scope = MutableMapping[str, Any]


async def asgi(scope: Scope, receive: Callable[[], Awaitable[Scope]], send: Callable[[Scope], Awaitable[None]]) -> None:
    raise NotImplementedError


async def loosely_typed(scope: dict[str, Any], receive: Any, send: Any) -> None:
    raise NotImplementedError


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    raise NotImplementedError


def route(environ: dict[str, Any]) -> str | None:
    return str(environ["route"])


def passes() -> bool:
    return True


async def passes_later() -> None:
    raise CheckFailed("no connection")


def every_setting(log_format: LogFormat) -> None:
    instrument(
        wsgi,
        service="orders",
        version="1.2.0",
        environment="production",
        health_path="/h",
        ready_path=None,
        startup_path=None,
        metrics_path="/m",
        metrics_token="secret",
        probe_aliases=True,
        manual_start=True,
        checks=[Check("passes", passes), checks.tcp("db", 5432), checks.disk_space("/tmp", timeout=2)],
        details=True,
        drain_seconds=5,
        management_port=9090,
        management_host="127.0.0.1",
        stall_seconds=30,
        objectives=(Availability(99.9), Latency(99, under=0.3, route="/items")),
        route=route,
        request_id_header="X-Correlation-ID",
        request_id_generator=lambda: "new",
        request_id_validator=str.isalnum,
        max_label_sets=100,
        native_histograms=True,
        size_histograms=True,
        log_format=log_format,
        log_level="info,sqlalchemy.engine=debug",
        access_levels={"4xx": "warning", 404: "info"},
        access_sample={"/feed": 0, "*": 0.1},
        log_schema="ecs",
        log_redact=["iban"],
        log_file=Path("/var/log/orders.json"),
        registry=CollectorRegistry(),
    )


def settings_are_collected_first(arguments: Arguments) -> None:
    arguments["log_format"] = "json"
    arguments["access_sample"] = 0.5
    arguments["access_levels"] = {"4xx": "warning"}
    assert_type(Settings.read(arguments).log_format, LogFormat)
    instrument(asgi, **arguments)
    ASGIMiddleware(asgi, **arguments)


def middlewares() -> None:
    observer = Observer(service="orders")
    assert_type(instrument(ASGIMiddleware(asgi, observer=observer)), ASGIMiddleware)
    assert_type(instrument(WSGIMiddleware(wsgi, log_format="off")), WSGIMiddleware)
    instrument(ASGIMiddleware(loosely_typed))
    instrument(ASGIMiddleware(asgi).serve)


def observer() -> None:
    obs = observer_of(asgi)
    assert_type(obs, Observer)
    assert_type(obs.settings, Settings)
    assert_type(obs.settings.checks, tuple[Check, ...])
    assert_type(obs.is_ready(), bool)
    obs.started()

    @obs.check("database", probe="startup", timeout=2, every=10, critical=False, failure_threshold=3)
    async def database() -> dict[str, int]:
        return {"connections": 3}

    @obs.startup_task
    def warm_up() -> int:
        return 3

    @obs.on_drain
    async def leave() -> None:
        raise NotImplementedError

    assert_type(warm_up(), int)
    obs.check("again")(database)
    obs.on_drain(warm_up)


def ready_made_checks(pool: object) -> list[Check]:
    return [
        checks.from_callable(passes),
        checks.from_callable(passes_later, name="later", probe="live", restart_container=True),
        checks.postgresql(pool, query="SELECT 2"),
        checks.redis("redis://cache"),
        checks.http("https://example.org", headers={"Accept": "text/plain"}, cache=0),
        checks.dns("example.org"),
    ]


def logging() -> None:
    configuration = configure_logging(log_format="json", log_level="warning", log_schema="ecs", log_redact=["iban"])
    logger = get_logger("orders", region="eu")
    assert_type(logger, FilteringBoundLogger)
    logger.info("order.placed", order_id=7)
    logger.bind(user="ada").warning("order.late", minutes=3)
    bind_context(order_id=7)
    assert_type(request_id(), str | None)
    configuration.restore()


def errors() -> ValueError:
    try:
        instrument(asgi, log_format="off")
    except SettingsError as error:
        return error
    assert_type(scaleobs.__version__, str)
    raise CheckFailed
