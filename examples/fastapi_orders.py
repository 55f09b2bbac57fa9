"""
FastAPI with the one line.

Run: uvicorn fastapi_orders:app
Try: /items/3
"""

from fastapi import FastAPI

import scaleobs

app = FastAPI()


@app.get("/items/{item_id}")
async def item(item_id: int) -> dict[str, int]:
    return {"id": item_id}


scaleobs.instrument(app, service="orders")
