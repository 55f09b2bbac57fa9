"""gunicorn for a service that scaleobs observes."""

import os

bind = "0.0.0.0:3000"

# As many as you like, one by default: a scrape shows the sum over all workers, whichever of them answers it.
workers = int(os.environ.get("WEB_CONCURRENCY", "1"))

# worker_class is yours: sync and gthread for WSGI, an ASGI worker for ASGI.

# Shorter than Kubernetes' terminationGracePeriodSeconds (30), so that the last requests end by themselves.
graceful_timeout = 25

# Longer than most load balancers keep an idle connection, so that they close it and no request meets a closed one.
keepalive = 75

# /tmp may be a disk; the file that tells the master a worker lives must not wait for one.
worker_tmp_dir = "/dev/shm"

# gunicorn 25.1 and later would open a control socket in the home directory, which a read-only container lacks.
control_socket_disable = True

# scaleobs writes one request.finished line for each request, so that gunicorn needn't.
accesslog = None

# The server's own lines, the master's too, look like the service's.
logconfig_dict = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"stdout": {"()": "scaleobs.logs.server_handler"}},
    "root": {"handlers": ["stdout"]},
    "loggers": {
        "gunicorn.error": {"level": "INFO", "handlers": ["stdout"], "propagate": False},
        # A logging dictionary turns access lines on, whatever accesslog says.
        "gunicorn.access": {"level": "CRITICAL", "handlers": [], "propagate": False},
    },
}
