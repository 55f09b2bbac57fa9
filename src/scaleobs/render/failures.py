"""Requests that fail, are slow or don't come, and errors in logs: what each alert on them has to see."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from scaleobs import catalog
from scaleobs.objectives import Availability, Latency, Objective
from scaleobs.render.faults import ONSET, Fault, Telling, around, quiet, sudden
from scaleobs.render.healthy import A_STEP, Labels, World
from scaleobs.render.promql import ROUTE, STARTED, UP
from scaleobs.render.thresholds import number

_BUDGET_SHARES = {"1h": Decimal("0.02"), "6h": Decimal("0.05"), "1d": Decimal("0.1"), "3d": Decimal("0.1")}
"""Which share of its budget an objective may spend within a window (SRE workbook, chapter 5)."""

_MORE, _LESS = Decimal("1.2"), Decimal("0.8")
_AWAY = 20
_LOOK_BACK = 300_000
"""Milliseconds: Prometheus takes a sample for the present one for so long, on any time scale."""

_HOURS = {"1h": 1, "6h": 6, "1d": 24, "3d": 72}


def _both(world: World, failed: Decimal, route: str | None = None, *, each: Decimal = A_STEP) -> dict[str, str]:
    return world.requests("a", failed, route, each=each) | world.requests("b", failed, route, each=each)


def _born(world: World, *, with_their_process: bool = False) -> dict[str, str]:
    """Return failures that `rate()` can't see: each is the first sample of its series, and there are many of them."""
    found = _both(world, Decimal(0), each=Decimal(30))
    for one, at in enumerate(range(ONSET, world.steps, world.in_steps(2.5))):
        instance = f"new-{one}" if with_their_process else "a"
        if with_their_process:
            found[world.series(UP, instance)] = f"_x{at} 1x{world.steps}"
            found[world.series(STARTED, instance)] = f"_x{at} {at * world.step / 1000}x{world.steps}"
        series = world.series(catalog.REQUESTS, instance, method="GET", route=f"/{one}", status_code="502")
        found[series] = f"_x{at} 100000x{world.steps}"
    return found


def _restarted(world: World) -> dict[str, str]:
    """Return an instance whose counters begin anew, beside one that has counted many failures, long ago."""
    found = _both(world, Decimal(0), each=Decimal(30))
    for instance, samples in (("a", world.then(5000, ONSET, 0)), ("b", world.always(5_000_000))):
        found |= dict.fromkeys((one for one in world.requests(instance) if 'code="500"' in one), samples)
    return found


def _away(world: World, up: str) -> dict[str, str]:
    """Return a while without a sample of the service, after which counters stand where they stood, or higher."""
    away = world.in_steps(_AWAY)
    found: dict[str, str] = {}
    for one in "ab":
        counters = list(world.requests(one))
        good, failed = ([name for name in counters if f'code="{code}"' in name] for code in ("200", "500"))
        found |= dict.fromkeys(good, f"0+30x{ONSET - 1} stale _x{away - 1} 9000+30x{world.steps}")
        found |= dict.fromkeys(failed, f"5000x{ONSET - 1} stale _x{away - 1} 5000x{world.steps}")
        gap = f"{up}x{away}"
        found[world.series(UP, one)] = f"1x{ONSET - 1} {gap} 1x{world.steps}"
        found[world.series(STARTED, one)] = f"-86400x{ONSET - 1} _x{away} -86400x{world.steps}"
    return found


def _high_error_rate(world: World, _: Labels) -> list[Fault]:
    below, above = around(world.lines.failed_share)
    outage = []
    if world.scale.minutes(_AWAY).milliseconds > _LOOK_BACK:
        what = "Prometheus was away, and finds failures of long ago."
        outage = [quiet(what, _away(world, "_"), is_never_true=True)]
    few, enough = (Decimal(world.lines.events + more) / 2 / world.window for more in (-2, 2))
    return [
        Fault("A little more requests fail than the line allows.", _both(world, above)),
        quiet("A little less fail than the line allows.", _both(world, below)),
        quiet("All fail, and they are too few to wake somebody.", _both(world, Decimal(1), each=few)),
        Fault("All fail, and they are just enough.", _both(world, Decimal(1), each=enough), latest=world.window + 2),
        quiet("All are mistakes of clients.", world.requests("a", status="404") | world.requests("b", status="404")),
        quiet("There are no requests.", _both(world, Decimal(0), each=Decimal(0))),
        sudden("Failures come with new series.", _born(world)),
        sudden("Failures come with new instances.", _born(world, with_their_process=True)),
        quiet("An instance starts again, and its counters with it.", _restarted(world)),
        quiet("Instances were down, and come with failures of long ago.", _away(world, "0"), is_never_true=True),
        *outage,
    ]


def _high_route_error_rate(world: World, _: Labels) -> list[Fault]:
    def counted(good: str, bad: str) -> dict[str, str]:
        labels = {"method": "POST", ROUTE: "/one"}
        samples = {"201": good, "503": bad}
        return {world.series(catalog.REQUESTS, **labels, status_code=code): samples[code] for code in samples}

    below, above = around(world.lines.route_failed_share)
    more, less = (
        counted(world.growing(A_STEP * (1 - share)), world.growing(A_STEP * share)) for share in (above, below)
    )
    return [
        Fault("A little more requests to one route of many fail than the line allows.", more),
        quiet("A little less do.", less),
        quiet("All fail, and they are too few.", counted("0", world.then(0, ONSET, world.lines.events - 1))),
    ]


def _error_log_burst(world: World, _: Labels) -> list[Fault]:
    def lines(usual: Decimal, later: Decimal, at: int, *levels: str) -> dict[str, str]:
        """Return lines of these levels, so many of them in each window, and from a step on so many."""
        series = [world.series(catalog.LOG_MESSAGES, level=level) for level in levels]
        first, then = (number(round(count / world.window / len(series), 6)) for count in (usual, later))
        # A step on, so that a rounding error of promtool's sum is no reset of the counter.
        until = number(round(Decimal(first) * at, 6))
        return dict.fromkeys(series, f"0+{first}x{at - 1} {until}+{then}x{world.steps}")

    enough, nothing = Decimal(world.lines.error_lines), Decimal(0)
    usual, later = enough / 5, world.in_steps(120)
    times, errors = usual * world.lines.error_lines_times, ("error", "critical")
    return [
        Fault(
            "After a silence more errors are logged than the line allows.",
            lines(nothing, enough * _MORE, ONSET, *errors),
            earliest=ONSET,
            latest=ONSET + world.window + 1,
        ),
        quiet("Fewer are.", lines(nothing, enough * _LESS, ONSET, *errors)),
        quiet("They are warnings.", lines(nothing, enough * 10, ONSET, "warning")),
        Fault(
            "Many more errors are logged than usual.",
            lines(usual, times * _MORE, later, *errors),
            earliest=later,
            latest=later + world.window + 1,
            steps=later + world.steps,
        ),
        Fault(
            "More are logged than usual, and not that many.",
            lines(usual, times * _LESS, later, *errors),
            fires=False,
            steps=later + world.steps,
        ),
    ]


def _slow(world: World, share: Decimal, route: str | None = None) -> dict[str, str]:
    return world.answers("a", share, route) | world.answers("b", share, route)


def _high_request_latency(world: World, _: Labels) -> list[Fault]:
    below, above = around(world.lines.slow_share)
    return [
        Fault("A little more requests are slow than the line allows.", _slow(world, above)),
        quiet("A little less are.", _slow(world, below)),
    ]


def _traffic_gone(world: World, _: Labels) -> list[Fault]:
    day = world.in_steps(24 * 60)
    end = day + world.in_steps(90)
    last = 3000 * (end - 1)
    stops = f"0+3000x{end - 1} {last}x{world.steps}"
    night = f"0+3000x{world.in_steps(10)} {3000 * world.in_steps(10)}x{world.in_steps(110)} "
    night += f"{3000 * world.in_steps(10)}+3000x{end - world.in_steps(120)} {last}x{world.steps}"
    found = []
    for name, samples, fires in (
        ("Requests stop, and at this time yesterday they came.", stops, True),
        ("Requests stop, and at this time yesterday there were none.", night, False),
    ):
        series = {key: samples for key in world.requests("a") if 'code="200"' in key}
        series |= world.without(catalog.REQUESTS, instances="b")
        silent = end + world.window
        # A day after the night is over, its pause is no longer one.
        steps = end + (world.steps if fires else world.in_steps(60))
        found.append(Fault(name, series, fires, silent - 2, silent + 1, steps=steps))
    return found


def _objective(world: World, labels: Labels) -> Objective:
    kind = Availability if labels["slo"] == "availability" else Latency
    return next(
        one for one in world.objectives if isinstance(one, kind) and getattr(one, "route", None) == labels.get(ROUTE)
    )


def _spending(world: World, labels: Labels, share: Decimal) -> dict[str, str]:
    if labels["slo"] == "availability":
        return _both(world, share, labels.get(ROUTE))
    return _slow(world, share, labels.get(ROUTE))


def _after_no_failure(world: World, share: Decimal, route: str | None) -> Fault:
    """Return what half an hour without a failure makes good, even where nothing was counted as 0 then."""
    later = replace(world, steps=world.in_steps(58))
    found = _both(later, share, route)
    for one, samples in found.items():
        if 'code="500"' in one:
            found[one] = f"_x{world.in_steps(30)} {samples}"
    return Fault("It goes faster, after a time without any failure.", found, fires=False, steps=later.steps)


def _burn(days: int) -> Telling:
    def faults(world: World, labels: Labels) -> list[Fault]:
        long = labels["long_window"]
        allowed = (100 - Decimal(str(_objective(world, labels).percent))) / 100
        below, above = around(_BUDGET_SHARES[long] * days * 24 / _HOURS[long] * allowed)
        found = [
            Fault("The budget goes a little faster than the line allows.", _spending(world, labels, above)),
            quiet("It goes a little slower.", _spending(world, labels, below)),
        ]
        if labels["slo"] == "availability" and long == "1h":
            found.append(_after_no_failure(world, below * Decimal("1.5"), labels.get(ROUTE)))
        return found

    return faults


def _most_go_wrong(world: World, labels: Labels) -> list[Fault]:
    return [
        Fault("Two of three requests go wrong.", _spending(world, labels, Decimal("0.66"))),
        quiet("One of three does.", _spending(world, labels, Decimal("0.33"))),
    ]


def failures(window_days: int) -> dict[str, Telling]:
    """Return what happens to each alert on requests, where budgets are for so many days."""
    return {
        "HighErrorRate": _high_error_rate,
        "HighRouteErrorRate": _high_route_error_rate,
        "ErrorLogBurst": _error_log_burst,
        "TrafficGone": _traffic_gone,
        "HighRequestLatency": _high_request_latency,
        "ErrorBudgetBurn": _burn(window_days),
        "LatencyBudgetBurn": _burn(window_days),
        "QuietServiceFailing": _most_go_wrong,
        "QuietServiceSlow": _most_go_wrong,
    }
