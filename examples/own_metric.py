"""
A metric of your own, made with prometheus_client, is on the same /metrics page.

Run: uvicorn own_metric:app
Try: /pay
"""

from prometheus_client import Counter
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

import scaleobs

PAID = Counter("payments_total", "Payments made.", ["currency"])


def pay(request):
    PAID.labels("EUR").inc()
    scaleobs.get_logger("shop").info("payment.made", currency="EUR")
    return PlainTextResponse("paid")


app = scaleobs.instrument(Starlette(routes=[Route("/pay", pay)]), service="payments")
