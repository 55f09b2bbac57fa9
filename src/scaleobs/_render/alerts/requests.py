"""Alerts on requests that fail, are slow or don't come, and on errors in logs."""

from __future__ import annotations

from decimal import Decimal

from scaleobs._render import recording
from scaleobs._render.alerts import Alert, AlertGroup
from scaleobs._render.durations import Duration
from scaleobs._render.overrides import number
from scaleobs._render.promql import ROUTE, STARTED, UP, grouped, joined
from scaleobs._render.recording import BAD, FAST, LOG_ERRORS, ROUTE_BAD, ROUTE_TOTAL, SLOW_RATIO, TIMED, TOTAL, Scope
from scaleobs._render.scenario import EACH_STEP, ONSET, Scenario, Series, SyntheticService, around, silent, step_change
from scaleobs.catalog import LOG_MESSAGES, REQUESTS
from scaleobs.objectives import Availability, Latency

_AWAY_MINUTES = 20
_LOOK_BACK = 300_000
"""Milliseconds: Prometheus takes a sample for the present one for so long, on any time scale."""

_ERROR_LINES, _TIMES_USUAL = 50, 10
"""So many lines, and so many times what is usual, are a burst."""

_NO_REQUESTS_PER_SECOND = Decimal("0.1")
"""A service with less traffic has quiet minutes of its own."""


def _enough(scope: Scope, rate: str) -> str:
    """Return the condition that enough requests were affected within the window that the rate is taken over."""
    return f"{rate} * {scope.window.seconds} >= {scope.thresholds.events}"


def _failing(scope: Scope) -> str:
    failed = f"{scope.recorded(recording.BAD_RATIO)} > {number(scope.thresholds.failed_share)}"
    return joined(failed, "and", _enough(scope, scope.recorded(BAD)))


def _failures(service: SyntheticService) -> list[Scenario]:
    outage = []
    if service.scale.minutes(_AWAY_MINUTES).milliseconds > _LOOK_BACK:
        what = "Prometheus was away, and finds failures of long ago."
        outage = [silent(what, _away(service, "_"), is_never_true=True)]
    few, enough = (Decimal(service.thresholds.events + more) / 2 / service.window for more in (-2, 2))
    mistakes = service.requests("a", status="404") | service.requests("b", status="404")
    return [
        *around(
            service.thresholds.failed_share,
            "A little more requests fail than the line allows.",
            "A little less fail than the line allows.",
            service.failing,
        ),
        silent("All fail, and they are too few to wake somebody.", service.failing(Decimal(1), each=few)),
        Scenario(
            "All fail, and they are just enough.",
            service.failing(Decimal(1), each=enough),
            latest=service.window + 2,
        ),
        silent("All are mistakes of clients.", mistakes),
        silent("There are no requests.", service.failing(Decimal(0), each=Decimal(0))),
        step_change("Failures come with new series.", _first_samples(service)),
        step_change("Failures come with new instances.", _first_samples(service, with_their_process=True)),
        silent("An instance starts again, and its counters with it.", _restarted(service)),
        silent("Instances were down, and come with failures of long ago.", _away(service, "0"), is_never_true=True),
        *outage,
    ]


def _first_samples(service: SyntheticService, *, with_their_process: bool = False) -> Series:
    """Return failures that `rate()` can't see: each is the first sample of its series, and there are many of them."""
    found = service.failing(Decimal(0), each=Decimal(30))
    for one, at in enumerate(range(ONSET, service.steps, service.in_steps(2.5))):
        instance = f"new-{one}" if with_their_process else "a"
        if with_their_process:
            found[service.series(UP, instance)] = f"_x{at} 1x{service.steps}"
            found[service.series(STARTED, instance)] = f"_x{at} {at * service.step / 1000}x{service.steps}"
        series = service.series(REQUESTS, instance, method="GET", route=f"/{one}", status_code="502")
        found[series] = f"_x{at} 100000x{service.steps}"
    return found


def _restarted(service: SyntheticService) -> Series:
    """Return an instance whose counters begin anew, beside one that has counted many failures, long ago."""
    found = service.failing(Decimal(0), each=Decimal(30))
    for instance, samples in (("a", service.then(5000, 0)), ("b", service.always(5_000_000))):
        found |= dict.fromkeys((one for one in service.requests(instance) if 'code="500"' in one), samples)
    return found


def _away(service: SyntheticService, up: str) -> Series:
    """Return a while without a sample of the service, after which counters stand where they stood, or higher."""
    away = service.in_steps(_AWAY_MINUTES)
    found: Series = {}
    for one in "ab":
        counters = list(service.requests(one))
        good, failed = ([name for name in counters if f'code="{code}"' in name] for code in ("200", "500"))
        found |= dict.fromkeys(good, f"0+30x{ONSET - 1} stale _x{away - 1} 9000+30x{service.steps}")
        found |= dict.fromkeys(failed, f"5000x{ONSET - 1} stale _x{away - 1} 5000x{service.steps}")
        found[service.series(UP, one)] = f"1x{ONSET - 1} {up}x{away} 1x{service.steps}"
        found[service.series(STARTED, one)] = f"-86400x{ONSET - 1} _x{away} -86400x{service.steps}"
    return found


def _route_failing(scope: Scope) -> str:
    window = scope.over("30m")
    failed, every = (f"sum_over_time({scope.recorded(name)}[{window}])" for name in (ROUTE_BAD, ROUTE_TOTAL))
    enough = f"{scope.events(scope.recorded(ROUTE_BAD), window)} >= {scope.thresholds.events}"
    return joined(f"{failed} / ({every} > 0) {scope.above}", "and", enough)


def _route_failures(service: SyntheticService) -> list[Scenario]:
    def counted(good: str, bad: str) -> Series:
        labels = {"method": "POST", ROUTE: "/one"}
        samples = {"201": good, "503": bad}
        return {service.series(REQUESTS, **labels, status_code=code): samples[code] for code in samples}

    return [
        *around(
            service.threshold,
            "A little more requests to one route of many fail than the line allows.",
            "A little less do.",
            lambda share: counted(service.growing(EACH_STEP * (1 - share)), service.growing(EACH_STEP * share)),
        ),
        silent("All fail, and they are too few.", counted("0", service.then(0, service.thresholds.events - 1))),
    ]


def _no_traffic(scope: Scope) -> str:
    # A pause at this time yesterday keeps it silent: nights, and work that comes once an hour.
    total = scope.recorded(TOTAL)
    recently = f"avg_over_time({total}[{scope.over('6h')}]) > {number(_NO_REQUESTS_PER_SECOND)}"
    # The hour before has to be known, too: of the first hour of a new service there may be five minutes.
    steady = f"min_over_time({total}[{scope.over('1h')}] offset {scope.over('1d')}) > 0"
    yesterday = joined(steady, "and", f"{total} offset {scope.over('1d1h')}")
    return joined(joined(recently, "and", f"{total} == 0"), "and", yesterday)


def _pauses(service: SyntheticService) -> list[Scenario]:
    day = service.in_steps(24 * 60)
    end = day + service.in_steps(90)
    last = 3000 * (end - 1)
    stops = f"0+3000x{end - 1} {last}x{service.steps}"
    night = f"0+3000x{service.in_steps(10)} {3000 * service.in_steps(10)}x{service.in_steps(110)} "
    night += f"{3000 * service.in_steps(10)}+3000x{end - service.in_steps(120)} {last}x{service.steps}"
    found = []
    for name, samples, fires in (
        ("Requests stop, and at this time yesterday they came.", stops, True),
        ("Requests stop, and at this time yesterday there were none.", night, False),
    ):
        series = {key: samples for key in service.requests("a") if 'code="200"' in key}
        series |= service.without(REQUESTS, instances="b")
        none = end + service.window
        # A day after the night is over, its pause is no longer one.
        steps = end + (service.steps if fires else service.in_steps(60))
        found.append(Scenario(name, series, fires, none - 2, none + 1, steps=steps))
    return found


def _burst(scope: Scope) -> str:
    written, day = scope.recorded(LOG_ERRORS), scope.over("1d")
    # The last hour is left out, so that a burst isn't measured against itself, and more if the alert waits for longer.
    # If no more is known, its least is usual.
    wait = scope.wait.milliseconds if scope.wait else 0
    hour = max(scope.over("1h"), Duration(wait + 2 * scope.window.milliseconds))
    usual = joined(f"avg_over_time({written}[{day}] offset {hour})", "or", f"min_over_time({written}[{hour}])")
    return joined(
        f"{written} * {scope.window.seconds} >= {_ERROR_LINES}",
        "and",
        f"{written} > {_TIMES_USUAL} * {grouped(usual)}",
    )


def _bursts(service: SyntheticService) -> list[Scenario]:
    def lines(usual: Decimal, later: Decimal, at: int, *levels: str) -> Series:
        """Return lines of these levels, so many of them in each window, and from a step on so many."""
        series = [service.series(LOG_MESSAGES, level=level) for level in levels]
        first, then = (number(round(count / service.window / len(series), 6)) for count in (usual, later))
        # A step on, so that a rounding error of promtool's sum is no reset of the counter.
        until = number(round(Decimal(first) * at, 6))
        return dict.fromkeys(series, f"0+{first}x{at - 1} {until}+{then}x{service.steps}")

    enough, nothing, later = Decimal(_ERROR_LINES), Decimal(0), service.in_steps(120)
    more, less = Decimal("1.2"), Decimal("0.8")
    usual, errors = enough / 5, ("error", "critical")
    times, long = usual * _TIMES_USUAL, later + service.steps
    return [
        Scenario(
            "After a silence more errors are logged than the line allows.",
            lines(nothing, enough * more, ONSET, *errors),
            earliest=ONSET,
            latest=ONSET + service.window + 1,
        ),
        silent("Fewer are.", lines(nothing, enough * less, ONSET, *errors)),
        silent("They are warnings.", lines(nothing, enough * 10, ONSET, "warning")),
        Scenario(
            "Many more errors are logged than usual.",
            lines(usual, times * more, later, *errors),
            earliest=later,
            latest=later + service.window + 1,
            steps=long,
        ),
        Scenario(
            "More are logged than usual, and not that many.",
            lines(usual, times * less, later, *errors),
            fires=False,
            steps=long,
        ),
    ]


ERRORS = AlertGroup(
    "errors",
    """\
Do requests fail? Both sides of the ratio are summed: 5xx series divided one by one are always 1.
The first rule alone reads what instances expose; those below it sum up what it has just recorded.
min_over_time ... unless ... offset adds what a series brought with it when it was born, which rate() can't
see: the first burst of errors on a route counts. A series that is new only because Prometheus was away
doesn't. No requests: no ratio and no alert. No errors: a ratio of 0.
HighRouteErrorRate: one route of many fails, which the ratio of the service hides.
TrafficGone: no request where there were some today, and no pause at this time yesterday.
ErrorLogBurst: far more log lines of errors than the mean of a day, which leaves out the last hour.""",
    (
        recording.errors,
        Alert(
            name="HighErrorRate",
            expression=_failing,
            wait="5m",
            severity="critical",
            summary="{job} fails too many requests",
            description=(
                "{share} of the requests to {job} failed with a 5xx status over the last {window}; the line is "
                "{failed_share}."
            ),
            scenarios=_failures,
        ),
        # A route that fails while the service as a whole is well: its share of the service's requests may be small.
        Alert(
            name="HighRouteErrorRate",
            expression=_route_failing,
            threshold=Decimal("0.2"),
            wait="5m",
            severity="warning",
            summary="A route of {job} fails too many requests",
            description=(
                "{share} of the requests to {route} of {job} failed with a 5xx status over the last {30m}; the line "
                "is {threshold}."
            ),
            scenarios=_route_failures,
        ),
        Alert(
            name="TrafficGone",
            expression=_no_traffic,
            wait="10m",
            longest_wait="5h",  # It compares with the last six hours.
            severity="warning",
            summary="No request reaches {job} any more",
            description=(
                "{job} has finished no request for {wait}, after {{ $value | humanize }} per second on average over "
                "the last {6h}. At this time yesterday they came without a pause."
            ),
            scenarios=_pauses,
        ),
        recording.log_errors,
        Alert(
            name="ErrorLogBurst",
            expression=_burst,
            wait="2m",
            severity="warning",
            summary="{job} logs many errors",
            description=(
                "{job} has written about {{ $value | humanize }} log lines of level error or critical within "
                f"{{window}}, more than {_TIMES_USUAL} times its mean of the last {{1d}}."
            ),
            scenarios=_bursts,
        ),
    ),
    objective=Availability,
)


def _slow(scope: Scope) -> str:
    slow = grouped(f"{scope.recorded(TIMED)} - {scope.recorded(FAST)}")
    share = f"{scope.recorded(SLOW_RATIO)} > {number(scope.thresholds.slow_share)}"
    return joined(share, "and", _enough(scope, slow))


LATENCY = AlertGroup(
    "latency",
    """\
Are requests slow? The share slower than {slow_seconds} s, exact because it is counted at a bucket's boundary.
Failures (5xx) and clients that went away (499) are left out: a fast failure is not good latency.
job:request_latency_seconds:mean5m is for comparison only. Never alert on it: with two requests in a hundred
taking 10 s, a mean of 0.25 s still looks well.""",
    (
        recording.latency,
        Alert(
            name="HighRequestLatency",
            expression=_slow,
            wait="10m",
            severity="warning",
            summary="{job} answers too many requests slowly",
            description=(
                "{share} of the requests to {job} took longer than {slow_seconds} s over the last {window}; the line "
                "is {slow_share}. Failed requests are left out."
            ),
            scenarios=lambda service: around(
                service.thresholds.slow_share,
                "A little more requests are slow than the line allows.",
                "A little less are.",
                service.slow,
            ),
        ),
    ),
    objective=Latency,
)
