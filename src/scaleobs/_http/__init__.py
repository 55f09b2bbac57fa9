"""HTTP requests and the endpoints: what ASGI and WSGI share, and the two middlewares."""
