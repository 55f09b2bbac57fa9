"""Alerts on requests that fail, are slow or don't come, and on errors in logs."""

from __future__ import annotations

from decimal import Decimal

from scaleobs._render import recording
from scaleobs._render.alerts import Alert, AlertGroup
from scaleobs._render.durations import Duration
from scaleobs._render.overrides import number
from scaleobs._render.promql import ROUTE, STARTED, UP, grouped, joined
from scaleobs._render.recording import BAD, FAST, LOG_ERRORS, ROUTE_BAD, ROUTE_TOTAL, SLOW_RATIO, TIMED, TOTAL, Scope
from scaleobs._render.scenario import (
    ONSET,
    REQUESTS_PER_STEP,
    Scenario,
    Series,
    SyntheticService,
    around,
    silent,
    step_change,
)
from scaleobs.catalog import LOG_MESSAGES, REQUESTS
from scaleobs.objectives import Availability, Latency

_OUTAGE_MINUTES = 20
_STALE_MILLISECONDS = 300_000
"""After this time without a sample a series has no value in Prometheus, on any time scale."""

_BURST_LINES, _BURST_FACTOR = 50, 10
"""The least number of lines of a burst, and how many times more than usual they are."""

_LEAST_REQUESTS_PER_SECOND = Decimal("0.1")
"""With less traffic a service has minutes without requests."""


def _enough_events(scope: Scope, rate: str) -> str:
    """Return the condition that enough requests were affected within the window of the rate."""
    return f"{rate} * {scope.window.seconds} >= {scope.thresholds.least_events}"


def _high_error_rate(scope: Scope) -> str:
    failed = f"{scope.recorded(recording.BAD_RATIO)} > {number(scope.thresholds.failed_share)}"
    return joined(failed, "and", _enough_events(scope, scope.recorded(BAD)))


def _error_scenarios(service: SyntheticService) -> list[Scenario]:
    outage = []
    if service.scale.minutes(_OUTAGE_MINUTES).milliseconds > _STALE_MILLISECONDS:
        name = "Prometheus was away, and finds old failures."
        outage = [silent(name, _outage(service, "_"), is_never_true=True)]
    few, enough = (Decimal(service.thresholds.least_events + more) / 2 / service.window for more in (-2, 2))
    client_errors = service.requests("a", status="404") | service.requests("b", status="404")
    return [
        *around(
            service.thresholds.failed_share,
            "Slightly more requests fail than the threshold allows.",
            "Slightly fewer requests fail than the threshold allows.",
            service.failing,
        ),
        silent("All requests fail, but they are too few.", service.failing(Decimal(1), each=few)),
        Scenario(
            "All requests fail, and they are just enough.",
            service.failing(Decimal(1), each=enough),
            latest=service.window + 2,
        ),
        silent("All are errors of clients.", client_errors),
        silent("There are no requests.", service.failing(Decimal(0), each=Decimal(0))),
        step_change("Failures come with new series.", _first_samples(service)),
        step_change("Failures come with new instances.", _first_samples(service, with_new_process=True)),
        silent("An instance restarts, and its counters begin at 0.", _restarted(service)),
        silent("Instances were down, and return with old failures.", _outage(service, "0"), is_never_true=True),
        *outage,
    ]


def _first_samples(service: SyntheticService, *, with_new_process: bool = False) -> Series:
    """Return failures that `rate()` ignores: each is the first sample of its series, and there are many of them."""
    result = service.failing(Decimal(0), each=Decimal(30))
    for index, at in enumerate(range(ONSET, service.steps, service.in_steps(2.5))):
        instance = f"new-{index}" if with_new_process else "a"
        if with_new_process:
            result[service.series(UP, instance)] = f"_x{at} 1x{service.steps}"
            result[service.series(STARTED, instance)] = f"_x{at} {at * service.step / 1000}x{service.steps}"
        series = service.series(REQUESTS, instance, method="GET", route=f"/{index}", status_code="502")
        result[series] = f"_x{at} 100000x{service.steps}"
    return result


def _restarted(service: SyntheticService) -> Series:
    """Return an instance whose counters begin at 0, beside one that counted many failures long ago."""
    result = service.failing(Decimal(0), each=Decimal(30))
    for instance, samples in (("a", service.changing(5000, 0)), ("b", service.constant(5_000_000))):
        result |= dict.fromkeys((one for one in service.requests(instance) if 'code="500"' in one), samples)
    return result


def _outage(service: SyntheticService, up: str) -> Series:
    """Return a time without samples of the service, after which counters have the same values, or higher ones."""
    missing = service.in_steps(_OUTAGE_MINUTES)
    result: Series = {}
    for one in "ab":
        counters = list(service.requests(one))
        good, failed = ([name for name in counters if f'code="{code}"' in name] for code in ("200", "500"))
        result |= dict.fromkeys(good, f"0+30x{ONSET - 1} stale _x{missing - 1} 9000+30x{service.steps}")
        result |= dict.fromkeys(failed, f"5000x{ONSET - 1} stale _x{missing - 1} 5000x{service.steps}")
        result[service.series(UP, one)] = f"1x{ONSET - 1} {up}x{missing} 1x{service.steps}"
        result[service.series(STARTED, one)] = f"-86400x{ONSET - 1} _x{missing} -86400x{service.steps}"
    return result


def _high_route_error_rate(scope: Scope) -> str:
    window = scope.scaled("30m")
    failed, every = (f"sum_over_time({scope.recorded(name)}[{window}])" for name in (ROUTE_BAD, ROUTE_TOTAL))
    enough = f"{scope.event_count(scope.recorded(ROUTE_BAD), window)} >= {scope.thresholds.least_events}"
    return joined(f"{failed} / ({every} > 0) {scope.above}", "and", enough)


def _route_error_scenarios(service: SyntheticService) -> list[Scenario]:
    def counted(good: str, bad: str) -> Series:
        labels = {"method": "POST", ROUTE: "/one"}
        samples = {"201": good, "503": bad}
        return {service.series(REQUESTS, **labels, status_code=code): samples[code] for code in samples}

    few = service.changing(0, service.thresholds.least_events - 1)
    return [
        *around(
            service.threshold,
            "Slightly more requests to one of many routes fail than the threshold allows.",
            "Slightly fewer requests to one of many routes fail than the threshold allows.",
            lambda share: counted(
                service.growing(REQUESTS_PER_STEP * (1 - share)), service.growing(REQUESTS_PER_STEP * share)
            ),
        ),
        silent("All requests to one of many routes fail, but they are too few.", counted("0", few)),
    ]


def _no_traffic(scope: Scope) -> str:
    # After a pause at this time yesterday it doesn't fire: nights, and requests that come once an hour.
    total = scope.recorded(TOTAL)
    recently = f"avg_over_time({total}[{scope.scaled('6h')}]) > {number(_LEAST_REQUESTS_PER_SECOND)}"
    # Samples an hour earlier are required, too: of the first hour of a new service there may be five minutes.
    steady = f"min_over_time({total}[{scope.scaled('1h')}] offset {scope.scaled('1d')}) > 0"
    yesterday = joined(steady, "and", f"{total} offset {scope.scaled('1d1h')}")
    return joined(joined(recently, "and", f"{total} == 0"), "and", yesterday)


def _traffic_scenarios(service: SyntheticService) -> list[Scenario]:
    day = service.in_steps(24 * 60)
    end = day + service.in_steps(90)
    last = 3000 * (end - 1)
    stops = f"0+3000x{end - 1} {last}x{service.steps}"
    night = f"0+3000x{service.in_steps(10)} {3000 * service.in_steps(10)}x{service.in_steps(110)} "
    night += f"{3000 * service.in_steps(10)}+3000x{end - service.in_steps(120)} {last}x{service.steps}"
    result = []
    for name, samples, fires in (
        ("Requests stop; at this time yesterday there were some.", stops, True),
        ("Requests stop; at this time yesterday there were none.", night, False),
    ):
        series = {key: samples for key in service.requests("a") if 'code="200"' in key}
        series |= service.without(REQUESTS, instances="b")
        none = end + service.window
        # A day after the end of the night, its pause no longer counts.
        steps = end + (service.steps if fires else service.in_steps(60))
        result.append(Scenario(name, series, fires, none - 2, none + 1, steps=steps))
    return result


def _log_burst(scope: Scope) -> str:
    written, day = scope.recorded(LOG_ERRORS), scope.scaled("1d")
    # The last hour is left out, so that a burst isn't compared with itself, and more if the alert's wait is longer.
    # Without an earlier hour, the lowest rate of this hour is the usual one.
    wait = scope.wait.milliseconds if scope.wait else 0
    hour = max(scope.scaled("1h"), Duration(wait + 2 * scope.window.milliseconds))
    usual = joined(f"avg_over_time({written}[{day}] offset {hour})", "or", f"min_over_time({written}[{hour}])")
    return joined(
        f"{written} * {scope.window.seconds} >= {_BURST_LINES}",
        "and",
        f"{written} > {_BURST_FACTOR} * {grouped(usual)}",
    )


def _log_burst_scenarios(service: SyntheticService) -> list[Scenario]:
    def lines(usual: Decimal, later: Decimal, at: int, *levels: str) -> Series:
        """Return the lines of these levels: `usual` in each window, and `later` in each from step `at` on."""
        series = [service.series(LOG_MESSAGES, level=level) for level in levels]
        first, then = (number(round(count / service.window / len(series), 6)) for count in (usual, later))
        # One step later, so that a rounding error of promtool's sum is no reset of the counter.
        until = number(round(Decimal(first) * at, 6))
        return dict.fromkeys(series, f"0+{first}x{at - 1} {until}+{then}x{service.steps}")

    enough, nothing, later = Decimal(_BURST_LINES), Decimal(0), service.in_steps(120)
    more, less = Decimal("1.2"), Decimal("0.8")
    usual, errors = enough / 5, ("error", "critical")
    times, long = usual * _BURST_FACTOR, later + service.steps
    return [
        Scenario(
            "After a time without errors more are logged than the threshold.",
            lines(nothing, enough * more, ONSET, *errors),
            earliest=ONSET,
            latest=ONSET + service.window + 1,
        ),
        silent("Slightly fewer errors are logged than the threshold.", lines(nothing, enough * less, ONSET, *errors)),
        silent("Only warnings are logged.", lines(nothing, enough * 10, ONSET, "warning")),
        Scenario(
            "Many more errors are logged than usual.",
            lines(usual, times * more, later, *errors),
            earliest=later,
            latest=later + service.window + 1,
            steps=long,
        ),
        Scenario(
            "More errors are logged than usual, but not enough.",
            lines(usual, times * less, later, *errors),
            fires=False,
            steps=long,
        ),
    ]


ERRORS = AlertGroup(
    "errors",
    """\
Do requests fail? Both sides of the ratio are sums: 5xx series divided one by one are always 1.
Only the first rule reads the series of instances; the rules below it sum what it has just recorded.
min_over_time ... unless ... offset adds the first value of a new series, which rate() ignores: the first
burst of errors on a route counts. A series that is new only because Prometheus was away doesn't count.
No requests: no ratio and no alert. No errors: a ratio of 0.
HighRouteErrorRate: one route of many fails, which the ratio of the service hides.
TrafficGone: no requests now, some in the last hours, and no pause at this time yesterday.
ErrorLogBurst: far more log lines of errors than the mean of a day without its last hour.""",
    (
        recording.errors,
        Alert(
            name="HighErrorRate",
            expression=_high_error_rate,
            wait="5m",
            severity="critical",
            summary="Too many requests to {job} fail",
            description=(
                "{share} of the requests to {job} failed with a 5xx status over the last {window}; the threshold "
                "is {failed_share}."
            ),
            scenarios=_error_scenarios,
        ),
        # A route may fail while the error ratio of the service is low: its share of the requests may be small.
        Alert(
            name="HighRouteErrorRate",
            expression=_high_route_error_rate,
            threshold=Decimal("0.2"),
            wait="5m",
            severity="warning",
            summary="Too many requests to a route of {job} fail",
            description=(
                "{share} of the requests to {route} of {job} failed with a 5xx status over the last {30m}; the "
                "threshold is {threshold}."
            ),
            scenarios=_route_error_scenarios,
        ),
        Alert(
            name="TrafficGone",
            expression=_no_traffic,
            wait="10m",
            longest_wait="5h",  # It is compared with the last six hours.
            severity="warning",
            summary="No request reaches {job} any more",
            description=(
                "{job} has finished no request for {wait}, after {{ $value | humanize }} per second on average over "
                "the last {6h}. At this time yesterday there was no pause."
            ),
            scenarios=_traffic_scenarios,
        ),
        recording.log_errors,
        Alert(
            name="ErrorLogBurst",
            expression=_log_burst,
            wait="2m",
            severity="warning",
            summary="{job} logs many errors",
            description=(
                "{job} has written about {{ $value | humanize }} log lines of level error or critical within "
                f"{{window}}, more than {_BURST_FACTOR} times its mean of the last {{1d}}."
            ),
            scenarios=_log_burst_scenarios,
        ),
    ),
    objective=Availability,
)


def _high_latency(scope: Scope) -> str:
    slow = grouped(f"{scope.recorded(TIMED)} - {scope.recorded(FAST)}")
    share = f"{scope.recorded(SLOW_RATIO)} > {number(scope.thresholds.slow_share)}"
    return joined(share, "and", _enough_events(scope, slow))


LATENCY = AlertGroup(
    "latency",
    """\
Are requests slow? The share slower than {slow_seconds} s, exact because it is counted at a bucket's boundary.
Failures (5xx) and requests whose client disconnected (499) are left out: a fast failure is not good latency.
job:request_latency_seconds:mean5m is for comparison only. Never alert on it: if two requests in a hundred
take 10 s, the mean may still be 0.25 s.""",
    (
        recording.latency,
        Alert(
            name="HighRequestLatency",
            expression=_high_latency,
            wait="10m",
            severity="warning",
            summary="Too many requests to {job} are slow",
            description=(
                "{share} of the requests to {job} took longer than {slow_seconds} s over the last {window}; the "
                "threshold is {slow_share}. Failed requests are left out."
            ),
            scenarios=lambda service: around(
                service.thresholds.slow_share,
                "Slightly more requests are slow than the threshold allows.",
                "Slightly fewer requests are slow than the threshold allows.",
                service.slow,
            ),
        ),
    ),
    objective=Latency,
)
