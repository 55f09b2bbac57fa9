"""
Which fault makes which alert fire: one row for each, and every alert that there is has one.

A new alert needs a row here; `test_every_alert_has_a_drill` checks it. A fault that isn't in `causes.py` yet becomes
a function there.
"""

from __future__ import annotations

from scaleobs.objectives import Availability, Latency, Objective
from support.drills import causes
from support.drills.causes import Cause

OBJECTIVES: tuple[Objective, ...] = (
    Availability(99.9),
    Latency(99, under=0.5),
    Latency(95, under=0.25, route="/work"),
)

DRILLS: dict[str, tuple[Cause, ...]] = {
    "ServiceDown": (causes.stopped,),
    "ServiceAbsent": (causes.deleted,),
    "InstanceDown": (causes.killed,),
    "MetricsMissing": (causes.uninstrumented,),
    "CrashLoop": (causes.crashing,),
    "ReplicasMissing": (causes.replicas_gone,),
    "ServiceNotReady": (causes.database_gone,),
    "InstanceNotReady": (causes.database_gone_for_one,),
    "StartupStuck": (causes.never_started,),
    "CheckFailing": (causes.search_gone,),
    "HighErrorRate": (causes.failing,),
    "HighRouteErrorRate": (causes.failing,),
    "ErrorLogBurst": (causes.complaining,),
    "HighRequestLatency": (causes.slow,),
    "ErrorBudgetBurn": (causes.failing,),
    "LatencyBudgetBurn": (causes.slow,),
    "QuietServiceFailing": (causes.few_fail,),
    "QuietServiceSlow": (causes.few_are_slow,),
    "HighCPUUsage": (causes.busy, causes.busy_container),
    "CPUThrottled": (causes.throttled_container,),
    "HighMemoryUsage": (causes.full_container,),
    "EventLoopLag": (causes.blocked,),
    "ThreadPoolSaturated": (causes.too_few_threads,),
    "HighFileDescriptorUsage": (causes.many_files,),
    "ConnectionsStuck": (causes.hanging,),
    "LabelSetsDropped": (causes.many_routes,),
    "InternalFaults": (causes.collector_broken,),
}

AFTER_A_DAY = {"TrafficGone"}
"""These need to have seen a day: `soak/test_healthy_stretch.py` has them fire at its end."""
