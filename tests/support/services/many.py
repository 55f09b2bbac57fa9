"""A service that counts every path as a route of its own, as one does whose routes are no templates."""

import scaleobs


async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})


app = scaleobs.instrument(app, service="many", max_label_sets=10, route=lambda scope: scope["path"])
