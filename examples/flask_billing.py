"""
Flask with the one line.

Run: gunicorn flask_billing:app
Try: /bills/7
"""

from flask import Flask

import scaleobs

app = Flask(__name__)


@app.get("/bills/<int:bill_id>")
def bill(bill_id: int) -> dict[str, int]:
    return {"id": bill_id}


scaleobs.instrument(app, service="billing")
