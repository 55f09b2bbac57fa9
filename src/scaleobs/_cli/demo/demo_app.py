"""The service of the demo: a shop with one line of scaleobs, whose database can be switched off."""

import asyncio
import random
from collections.abc import AsyncIterator

from fastapi import FastAPI, HTTPException
from fastapi.responses import StreamingResponse

import scaleobs

app = FastAPI()
scaleobs.instrument(app, service="orders", version="1.4.2", environment="demo", drain_seconds=0)

log = scaleobs.get_logger("shop")
database = {"is_there": True}


@scaleobs.observer_of(app).check("database")
def database_answers() -> None:
    """Fail if the database is gone."""
    if not database["is_there"]:
        reason = "connection refused"
        raise scaleobs.CheckFailed(reason)


@app.get("/items/{item_id}")
async def item(item_id: int) -> dict[str, int]:
    """Answer from memory, like most requests."""
    if item_id > 90:  # noqa: PLR2004
        raise HTTPException(404, "sold out")
    return {"id": item_id, "price": 5 * item_id}


@app.post("/orders")
async def order() -> dict[str, str]:
    """Write to the database, or fail."""
    await asyncio.sleep(random.uniform(0.005, 0.03))  # noqa: S311
    if not database["is_there"]:
        reason = "database: connection refused"
        raise ConnectionError(reason)
    log.info("order.placed")
    return {"status": "placed"}


@app.get("/report")
async def report() -> dict[str, float]:
    """Answer slowly."""
    await asyncio.sleep(random.uniform(0.25, 0.4))  # noqa: S311
    return {"revenue": 1234.5}


@app.get("/feed")
async def feed() -> StreamingResponse:
    """Stream for a fifth of a second."""

    async def events() -> AsyncIterator[str]:
        for number in range(5):
            yield f"data: {number}\n\n"
            await asyncio.sleep(0.04)

    return StreamingResponse(events(), media_type="text/event-stream")


@app.post("/database/{state}")
async def switch_database(state: str) -> dict[str, bool]:
    """Switch the database `off` or `on`; this is the demo's fault."""
    database["is_there"] = state == "on"
    return database
