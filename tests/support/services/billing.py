"""A Flask service whose bills can be made to fail."""

from flask import Flask

import scaleobs

app = Flask(__name__)
scaleobs.instrument(app, service="billing")
state = {"is_broken": False}


@app.get("/bills/<int:bill_id>")
def bill(bill_id: int) -> dict[str, int]:
    if state["is_broken"]:
        raise RuntimeError("the ledger is gone")
    return {"id": bill_id}


@app.post("/broken/<answer>")
def set_broken(answer: str) -> str:
    state["is_broken"] = answer == "yes"
    return answer
