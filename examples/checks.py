"""
Checks that readiness asks: sync or async, each within its own time, all side by side.

Run: uvicorn checks:app
Try: /ready
"""

import asyncio
import shutil

from starlette.applications import Starlette

import scaleobs

app = scaleobs.instrument(Starlette(), service="orders")
obs = scaleobs.observer_of(app)


@obs.check("database", timeout=0.5)
async def database():
    await asyncio.sleep(0.01)  # Ask the pool for a row here; an exception or a timeout turns /ready to 503.


@obs.check("disk")
def disk():
    free = shutil.disk_usage("/").free
    if free < 1_000_000:
        raise scaleobs.CheckFailed(f"{free} bytes left")
    return {"free_bytes": free}
