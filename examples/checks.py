"""
Checks of readiness: sync or async, each within its own time, all side by side.

Run: uvicorn checks:app
Try: /ready
"""

import asyncio

from starlette.applications import Starlette

import scaleobs
from scaleobs import checks

app = scaleobs.instrument(Starlette(), service="orders", checks=[checks.disk_space(free_share=0.001)])
obs = scaleobs.observer_of(app)


@obs.check("database", timeout=0.5)
async def database():
    await asyncio.sleep(0.01)  # Query the pool instead; an exception or a timeout turns /ready to 503.


@obs.check("recommendations", critical=False, every=10)
def recommendations():
    pass  # Without them the shop still sells: a failure shows as {"state": "DEGRADED"}, and /ready stays at 200.
