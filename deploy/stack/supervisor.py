"""The whole system as one object: databases, Redis, services, loops and nginx.

    with Stack(folder, database="sqlite", env={"HOLD_TTL_SECONDS": "5"}) as stack:
        stack.url, stack.services["order"]["pid"], stack.logins["admin"]["password"]

`manage_all.py up` runs one; tests run private ones beside it, each in a folder of its own.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, Self

from deploy.stack import credentials, demo_sale, environment, nginx_server, ports, redis_server
from deploy.stack.api import Api, wait_ready
from deploy.stack.children import BACKOFF_SECONDS_MAX, Children
from deploy.stack.errors import Interrupted
from deploy.stack.layout import ROOT, SERVICES, Layout, read_json, write_json
from deploy.stack.leftovers import FolderLock, end_leftovers
from deploy.stack.mysql_server import PrivateMySQL
from deploy.stack.processes import Child, allow_open_files

READY_SECONDS_MAX = 60.0
APPLICATIONS = {**{name: f"services.{name}" for name in SERVICES}, "gateway": "gateway"}
# What lower stages serve must be there before a stage starts, and until it has ended.
STAGE_SERVERS, STAGE_SERVICES, STAGE_NGINX = 0, 1, 2


class Stack:
    """A running system in one folder. ``port=0`` takes a free one.

    ``env`` sets what the processes may read from their environment; of the caller's own they get
    no more than PATH and its like, so that a test's settings do not leak into the system it starts.
    ``backoff_seconds_max`` is the longest pause before what died is started again: whoever kills
    on purpose, and often, need not wait as for a program that cannot run.
    """

    def __init__(
        self,
        folder: Path,
        *,
        database: str = "sqlite",
        port: int = 0,
        env: Mapping[str, str] | None = None,
        demo: bool = False,
        report: Callable[[str], None] | None = None,
        backoff_seconds_max: float = BACKOFF_SECONDS_MAX,
    ) -> None:
        self.layout = Layout(folder.absolute())
        self.database = database
        self.port = port
        self.logins: dict[str, Any] = {}
        self.env: dict[str, str] = {}
        self._caller = {**environment.basics(), **(env or {})}
        self._demo = demo
        self._report = report or (lambda text: None)
        self._lock = FolderLock(self.layout.lock)
        self._children = Children(self._write_state, backoff_seconds_max=backoff_seconds_max)
        self._ports: dict[str, int] = {}
        self._mysql: PrivateMySQL | None = None
        self._state = "starting"
        self._state_lock = threading.Lock()
        self._socket_folder: Path | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """What a browser uses."""
        return f"http://{ports.LOOPBACK}:{self.port}"

    @property
    def services(self) -> dict[str, dict[str, Any]]:
        """Name → url and pid (gunicorn's arbiter) of the four services and the gateway."""
        return {
            name: {"url": self.service_url(name), "pid": self._children.get(name).pid}
            for name in APPLICATIONS
        }

    def service_url(self, name: str) -> str:
        return f"http://{ports.LOOPBACK}:{self._ports[name]}"

    def child(self, name: str) -> Child:
        """Return a process: redis, mysql, nginx, gateway, a service, ``<service>-loops`` or
        ``<service>-relay-<number>``."""
        return self._children.get(name)

    def stop_child(self, name: str, grace_seconds: float | None = None) -> None:
        """Stop one process; it stays down until ``start_child``."""
        self._children.stop_one(name, grace_seconds)

    def start_child(self, name: str) -> None:
        """Start a stopped process again and wait until it answers."""
        self._children.start_one(name)
        self._wait_ready(name)

    def manage(
        self, service: str, *arguments: str, **extra: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a service's management command; ``extra`` are environment variables."""
        return subprocess.run(
            manage_argv(service, *arguments),
            env={**self.env, **extra},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )

    def api(self, username: str = "") -> Api:
        """Return a client of the public API, logged in if a user of the logins is named."""
        client = Api(self.url)
        if username:
            everyone = [self.logins["admin"], *self.logins["buyers"]]
            password = next(u["password"] for u in everyone if u["username"] == username)
            client.login(username, password).require(200)
        return client

    def start(self) -> None:
        """Start everything and return when all is ready; on failure leave nothing running."""
        self.layout.prepare()
        self._lock.acquire()
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop everything in order. The data stays."""
        if not self._lock.is_held:
            return
        self._state = "stopping"
        self._children.stop_all()
        if self._socket_folder not in (None, self.layout.run):
            shutil.rmtree(str(self._socket_folder), ignore_errors=True)
        self.layout.stack_json.unlink(missing_ok=True)
        self._state = "stopped"
        self._write_state()
        self._lock.release()

    def _start(self) -> None:
        allow_open_files()
        environment.more_relays(self._caller)
        left = end_leftovers(self.layout)
        if left:
            self._report(f"Ended what a killed supervisor had left running: {', '.join(left)}")
        free = ports.free_ports(len(APPLICATIONS) + 1)
        if self.port:
            ports.require_free(self.port)
        else:
            self.port = free.pop()
        self._ports = dict(zip(APPLICATIONS, free, strict=False))
        self._socket_folder = self.layout.socket_folder()
        known = credentials.load_or_make(self.layout.secrets_json)
        self.logins = credentials.logins(known)
        self._report("Starting Redis" + (" and MySQL" if self.database == "mysql" else ""))
        redis_socket = self._socket_folder / redis_server.SOCKET_NAME
        self.env = environment.shared_environment(
            self.layout,
            known,
            caller=self._caller,
            service_urls={name: self.service_url(name) for name in APPLICATIONS},
            public_url=self.url,
            redis_urls=redis_server.urls(redis_socket),
            database_urls=self._start_mysql(),
        )
        write_json(self.layout.environment_json, environment.for_later(self.env, self.database))
        # Needs the virtual environment, which this module's importer may not have yet.
        from common.keyring import ensure_keys

        ensure_keys(Path(self.env["KEYS_DIR"]), APPLICATIONS)
        if not {"CACHE_URL", "STREAM_URL"} <= self._caller.keys():
            self._start_redis(redis_socket)
        self._report("Migrating and starting the services")
        self._together(
            *(lambda name=name: self._bring_up(name) for name in SERVICES),
            lambda: self._start_web("gateway"),
            self._prepare_nginx,
        )
        self._children.start(nginx_server.child(self.layout, self.env), STAGE_NGINX)
        self._wait_ready("nginx")
        self._check_logins()
        if self._demo:
            self._load_demo()
        self._children.watch()
        self._state = "running"
        self._write_state()

    def _start_mysql(self) -> dict[str, str]:
        """Start the private server if this system uses one; returns the URLs of its databases."""
        if self.database != "mysql":
            return {}
        self._mysql = PrivateMySQL(
            self.layout.mysql, socket_folder=self._socket_folder, log=self.layout.log("mysql")
        )
        self._mysql.prepare()
        server = self._mysql.child()
        self._children.start(server, STAGE_SERVERS)
        self._mysql.wait_ready(server)
        return {
            f"{name.upper()}_DATABASE_URL": self._mysql.create_database(name) for name in SERVICES
        }

    def _start_redis(self, socket: Path) -> None:
        server = redis_server.child(self.layout.redis, socket, self.layout.log("redis"), self.env)
        self._children.start(server, STAGE_SERVERS)
        redis_server.wait_ready(server, socket)

    def _bring_up(self, name: str) -> None:
        """Migrate a service, then start it."""
        self._task(f"{name}-migrate", manage_argv(name, "migrate", "--noinput"))
        if name == "auth" and not self._loaded("logins"):
            self._together(self._make_logins, lambda: self._start_service(name))
        else:
            self._start_service(name)

    def _start_service(self, name: str) -> None:
        self._start_loops(f"{name}-loops", manage_argv(name, "run_loops"))
        if name != "auth":
            for number in range(environment.more_relays(self.env)):
                self._start_loops(f"{name}-relay-{number + 2}", manage_argv(name, "relay_outbox"))
        self._start_web(name)

    def _start_loops(self, process: str, argv: list[str]) -> None:
        child = Child(process, argv, self.env, self.layout.log(process))
        self._children.start(child, STAGE_SERVICES)

    def _start_web(self, name: str) -> None:
        bind = f"{ports.LOOPBACK}:{self._ports[name]}"
        argv = [sys.executable, "-m", "gunicorn", "-c", "deploy/gunicorn.conf.py"]
        web = Child(
            name,
            [*argv, f"{APPLICATIONS[name]}.wsgi:application"],
            environment.web_environment(self.env, name, bind),
            self.layout.log(name),
        )
        self._children.start(web, STAGE_SERVICES)
        self._wait_ready(name)

    def _prepare_nginx(self) -> None:
        self._children.run_task(
            nginx_server.render_task(self.layout, self.port, self._ports, self.env)
        )
        # The gateway's settings name the static files of all services.
        self._task("collectstatic", manage_argv("gateway", "collectstatic", "--noinput"))

    def _wait_ready(self, name: str) -> None:
        if name in self._ports:
            url = f"{self.service_url(name)}/readyz"
        elif name == "nginx":
            url = f"{self.url}/readyz"
        else:
            return
        wait_ready(url, lambda: self._children.require_alive(name), READY_SECONDS_MAX)

    def _make_logins(self) -> None:
        admin = self.logins["admin"]["username"]
        everyone = [self.logins["admin"], *self.logins["buyers"]]
        self._together(*(lambda user=user: self._make_login(user, admin) for user in everyone))
        self._mark_loaded("logins")

    def _make_login(self, user: dict[str, str], admin: str) -> None:
        name = user["username"]
        role = "admin" if name == admin else "user"
        argv = manage_argv("auth", "create_user", name, "--email", f"{name}@example.com")
        self._task(
            f"create-user-{name}", [*argv, "--role", role], NEW_USER_PASSWORD=user["password"]
        )

    def _check_logins(self) -> None:
        """Make the logins again where somebody deleted the database that had them."""
        admin = self.logins["admin"]
        if Api(self.url).login(admin["username"], admin["password"]).status == 401:
            self._make_logins()

    def _load_demo(self) -> None:
        admin = self.api(self.logins["admin"]["username"])
        if not self._loaded("sale") or demo_sale.is_empty(admin):
            self._report("Loading the demo sale")
            demo_sale.load(admin)
            self._mark_loaded("sale")

    def _loaded(self, what: str) -> bool:
        return self._databases() in read_json(self.layout.loaded_json).get(what, [])

    def _mark_loaded(self, what: str) -> None:
        loaded = read_json(self.layout.loaded_json)
        loaded[what] = sorted({*loaded.get(what, []), self._databases()})
        write_json(self.layout.loaded_json, loaded)

    def _databases(self) -> str:
        """Name the databases in use: each kind of `up` has its own data."""
        return environment.fingerprint(self.env, self.database)

    def _task(self, name: str, argv: list[str], **extra: str) -> None:
        self._children.run_task(Child(name, argv, {**self.env, **extra}, self.layout.log(name)))

    def _together(self, *steps: Callable[[], None]) -> None:
        """Run the steps at once; the first failure stops the others and is raised."""
        with ThreadPoolExecutor(max_workers=len(steps)) as pool:
            futures: list[Future[None]] = [pool.submit(step) for step in steps]
            try:
                done, _ = wait(futures, return_when=FIRST_EXCEPTION)
                for future in done:
                    future.result()
            except BaseException as error:
                self._children.stop_all()
                raise first_cause(futures, error) from None

    def _write_state(self) -> None:
        with self._state_lock:
            write_json(
                self.layout.state_json,
                {
                    "state": self._state,
                    "url": self.url if self.port else None,
                    "database": self.database,
                    "processes": self._children.states(),
                },
            )
            if self._state == "running":
                # A service that was restarted has another pid.
                write_json(
                    self.layout.stack_json,
                    {
                        "url": self.url,
                        "database": self.database,
                        "services": self.services,
                        "logins": self.logins,
                    },
                )


def manage_argv(service: str, *arguments: str) -> list[str]:
    """Return the command line of a service's (or the gateway's) manage.py."""
    folder = ROOT / APPLICATIONS[service].replace(".", "/")
    return [sys.executable, str(folder / "manage.py"), *arguments]


def first_cause(futures: list[Future[None]], error: BaseException) -> BaseException:
    """Prefer what really failed to the interruption that it brought to the others."""
    failures = [f.exception() for f in futures if f.done() and not f.cancelled()]
    real = [failure for failure in failures if failure and not isinstance(failure, Interrupted)]
    return real[0] if real and isinstance(error, Interrupted) else error
