"""gunicorn's settings for every service, under `manage_all.py up` and in containers alike."""

import gc
import os

bind = os.environ.get("WEB_BIND", "0.0.0.0:8000")
workers = int(os.environ.get("WEB_WORKERS", "2"))
threads = int(os.environ.get("WEB_THREADS", "16"))
# mysqlclient blocks gevent, and Django on ASGI is slower than threads.
worker_class = "gthread"
# One worker may hold more connections than threads: nginx keeps idle ones open.
worker_connections = 1000
backlog = 2048

# Longer than nginx keeps an idle upstream connection (30 s): it must not write into a closed one.
keepalive = 75
# For gthread this is no limit on a request (nginx has one): the main thread reports every second
# that the process is alive, and a worker that hangs as a whole is replaced after so long.
timeout = 10
# Longer than nginx waits for an answer (8 s): a request that was accepted is finished.
graceful_timeout = 10
max_requests = 0

# Loaded once and shared by the workers; no connection may be open before they are forked.
preload_app = True
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108

# gunicorn would take SCRIPT_NAME and PATH_INFO from request headers of any local client, and one
# control socket per user, which several services steal from each other.
forwarder_headers = ""
header_map = "refuse"
control_socket_disable = True

# nginx writes the access log; errors go to stderr.
accesslog = None
errorlog = "-"
loglevel = os.environ.get("GUNICORN_LOG_LEVEL", "warning")


def when_ready(server: object) -> None:
    """Start on no database that would forget; keep what was loaded out of garbage collection, so
    that the workers go on sharing it."""
    from common.durability import require_durable

    require_durable()
    gc.collect()
    gc.freeze()
    # A batch makes thousands of small objects that live as long as its transaction: the usual
    # threshold would have each of them looked at many times over.
    gc.set_threshold(20_000, 10, 10)


def pre_fork(server: object, worker: object) -> None:
    """Close what loading may have opened: two processes cannot share a connection."""
    from django.conf import settings
    from django.db import connections

    # Asking for the connections of a project without databases would configure one.
    if settings.DATABASES:
        connections.close_all()
