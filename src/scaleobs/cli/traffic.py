"""Bounded traffic to the demo's shop: a few customers at a steady pace, until they are told to stop."""

from __future__ import annotations

import http.client
import random
import threading
import time
from typing import Self

from scaleobs.cli.stack import LOOPBACK

_CUSTOMERS = 4
_PAUSE_SECONDS = 0.08
_MOST_REQUESTS = 20_000
"""What one customer sends at the most before it starts over; a demo that is kept up stays gentle."""

_ERRANDS = (
    [("GET", "/items/{}")] * 10
    + [("POST", "/orders")] * 6
    + [("GET", "/report")] * 2
    + [("GET", "/feed")] * 2
    + [("GET", "/old-page")]
)


class Traffic:
    """Customers who send one request after the other, for the length of a `with` block."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._is_over = threading.Event()
        self._customers = [
            threading.Thread(target=self._shop, args=(number,), name=f"customer-{number}", daemon=True)
            for number in range(_CUSTOMERS)
        ]
        self.sent = 0
        self.failed = 0

    def __enter__(self) -> Self:
        for customer in self._customers:
            customer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for customer in self._customers:
            customer.join(5)

    def _shop(self, number: int) -> None:
        choice = random.Random(number)  # noqa: S311 - The same errands in every demo.
        connection = http.client.HTTPConnection(LOOPBACK, self._port, timeout=5)
        for _ in range(_MOST_REQUESTS):
            if self._is_over.wait(_PAUSE_SECONDS):
                break
            method, path = choice.choice(_ERRANDS)
            try:
                connection.request(method, path.format(choice.randint(1, 100)))
                answer = connection.getresponse()
                answer.read()
                self.sent += 1
                self.failed += answer.status >= 500  # noqa: PLR2004
            except (OSError, http.client.HTTPException):
                connection.close()
                time.sleep(_PAUSE_SECONDS)
        connection.close()
