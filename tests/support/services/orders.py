"""A FastAPI service whose orders can be made to fail."""

from fastapi import FastAPI, HTTPException

import scaleobs

app = FastAPI()
scaleobs.instrument(app, service="orders")
state = {"is_broken": False}


@app.get("/orders/{order_id}")
def order(order_id: int) -> dict[str, int]:
    if state["is_broken"]:
        raise HTTPException(503)
    return {"id": order_id}


@app.post("/broken/{answer}")
async def set_broken(answer: str) -> None:
    state["is_broken"] = answer == "yes"
