"""An application and its routes, used as the middleware uses them."""

from __future__ import annotations

import asyncio
import contextlib
import random

from scaleobs._routes import ROUTE, routes_of
from support.exchanges import http_scope, serve_asgi, wsgi


class Site:
    """An application behind a server of one protocol, with a cache of templates by route key."""

    def __init__(self, app, protocol, served=None):
        self.app, self.protocol = app, protocol
        self.served = app if served is None else served
        self.routes = routes_of(self.served)
        self.remembered = {}
        self.lookups = 0

    def get(self, method="GET", path="/", **more):
        """Serve one request, and return the status and the template, cached as the middleware caches it."""
        if self.protocol == "asgi":
            request = http_scope(method, path, **{"headers": [("Host", "testserver")], **more})
            seen = asyncio.run(serve_asgi(self.served, request))
        else:
            request, seen = self._wsgi(method, path, more)
        return seen.status, self.template(request)

    def template(self, request):
        """Return the template of a handled request, from the cache if it is there."""
        with contextlib.suppress(KeyError, TypeError):  # Not remembered, or no key.
            return self.remembered[self._route_key_of(request)]
        self.lookups += 1
        template, is_cacheable = self.routes.template(request)
        if is_cacheable:
            self.remembered[self._route_key_of(request)] = template
        return template

    def _route_key_of(self, request):
        value = request.get(self.routes.route_key)
        return id(value) if self.routes.route_key == ROUTE else value

    def _wsgi(self, method, path, more):
        environs = []

        def kept(environ, start_response):
            environs.append(environ)
            return self.served(environ, start_response)

        seen = wsgi(kept, method, path, **more)
        return environs[0], seen


def scan(site, starts=("/",), times=200):
    """Return the templates of two hundred random paths."""
    dice = random.Random(7)
    words = ["..", "%2e", "a" * 500, "{item_id}", "<int:x>", "*", "wp-login.php", "$(id)", "é"]
    found = set()
    for _ in range(times):
        method = dice.choice(["GET", "POST", "DELETE", "OPTIONS"])
        found.add(site.get(method, dice.choice(starts) + dice.choice(words) + str(dice.random()))[1])
    return found
