"""gunicorn for a service that scaleobs instruments."""

import os

bind = "0.0.0.0:3000"

# Any number, one by default: a scrape shows the sum over all workers, no matter which of them answers.
workers = int(os.environ.get("WEB_CONCURRENCY", "1"))

# Set worker_class yourself: sync or gthread for WSGI, an ASGI worker for ASGI.

# Shorter than Kubernetes' terminationGracePeriodSeconds (30), so that the last requests can end.
graceful_timeout = 25

# Longer than most load balancers keep an idle connection, so that they close it first and never use a closed one.
keepalive = 75

# Not /tmp, which may be a disk: a slow disk would delay the heartbeat file of a worker.
worker_tmp_dir = "/dev/shm"

# gunicorn 25.1 and later would open a control socket in the home directory, which a read-only container lacks.
control_socket_disable = True

# scaleobs writes one request.finished line for each request, so that gunicorn writes none.
accesslog = None

# The server's own lines, also the master's, have the format of the service's.
logconfig_dict = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"stdout": {"()": "scaleobs.logs.server_handler"}},
    "root": {"handlers": ["stdout"]},
    "loggers": {
        "gunicorn.error": {"level": "INFO", "handlers": ["stdout"], "propagate": False},
        # A logging dictionary turns access lines on, even if accesslog is None.
        "gunicorn.access": {"level": "CRITICAL", "handlers": [], "propagate": False},
    },
}
