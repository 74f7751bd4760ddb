"""Renders the whole nginx configuration from the route table.

    python -m gateway.nginx --output FILE --listen 127.0.0.1:8000 --run-dir DIR --static DIR \\
        --auth HOST:PORT --catalog HOST:PORT --inventory HOST:PORT --order HOST:PORT \\
        --gateway HOST:PORT
    nginx -e stderr -c FILE    (stays in the foreground; SIGQUIT ends it softly, SIGHUP reloads)

Needs no Django, so that it can run before anything is configured.
"""

from __future__ import annotations

import argparse
import grp
import os
import pwd
import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gateway.nginx_problems import error_pages, problem_locations
from gateway.routes import (
    GATEWAY,
    LIMITS,
    PLAIN_PATH,
    READS,
    ROUTES,
    SERVICES,
    URI_LENGTH_MAX,
    Kind,
    Route,
)

TEMPLATE = Path(__file__).with_name("nginx.conf.template")
UPSTREAMS = (*SERVICES, GATEWAY)
# The Host under which nginx asks the gateway, so that the one a client sent decides nothing.
AUTHORIZE_HOST = "authorize.internal"
# What waits longer than the read timeout is done for nobody, so beyond this queue it is better to
# say 503 at once. At 200 requests/s it is five seconds deep.
CONNECTIONS_MAX = 256
LIMIT_ZONE_SIZE = "10m"  # about 160,000 addresses

# Headers that some software takes for an identity, an original address or another method. They are
# emptied (nginx then sends none); the ones set in UPSTREAM_HEADERS are overwritten instead.
DROPPED_HEADERS = (
    *("X-User-Id", "X-User", "X-User-Name", "X-Username", "X-User-Email", "X-User-Role"),
    *("X-User-Roles", "X-Role", "X-Roles", "X-Groups", "X-Admin", "X-Is-Admin", "X-Buyer-Id"),
    *("Remote-User", "X-Remote-User", "X-Remote-User-Id", "X-Authenticated-User"),
    *("X-Authenticated-Userid", "X-Auth-User", "X-Auth-Request-User", "X-Auth-Request-Email"),
    *("X-Consumer-Id", "X-Consumer-Username", "X-Service", "X-Service-Name", "X-Principal"),
    *("X-Forwarded-User", "X-Forwarded-Email", "X-Forwarded-Groups", "X-Forwarded-Access-Token"),
    *("X-Forwarded-Preferred-Username", "X-Forwarded-Host", "X-Forwarded-Server"),
    *("X-Forwarded-Port", "X-Forwarded-Prefix", "X-Forwarded-Scheme", "X-Forwarded-Ssl"),
    *("Forwarded", "X-Client-Ip", "X-Cluster-Client-Ip", "Client-Ip", "True-Client-Ip"),
    *("Cf-Connecting-Ip", "X-Original-Uri", "X-Original-Url", "X-Original-Method"),
    *("X-Original-Host", "X-Original-Forwarded-For", "X-Rewrite-Url", "X-Refusal", "X-Login"),
    *("X-Http-Method-Override", "X-Http-Method", "X-Method-Override", "Script-Name", "Path-Info"),
    *("Proxy", "Upgrade"),
)
UPSTREAM_HEADERS = {
    "Host": "$http_host",
    "Connection": '""',
    "X-Request-ID": "$request_id",
    "X-Real-IP": "$remote_addr",
    "X-Forwarded-For": "$remote_addr",
    "X-Forwarded-Proto": "$scheme",
}
AUTHORIZE_HEADERS = {
    **UPSTREAM_HEADERS,
    "Host": AUTHORIZE_HOST,
    "Content-Length": '""',
    "Accept": "$http_accept",
    "Authorization": "$http_authorization",
    "Cookie": "$http_cookie",
    "X-Original-Method": "$request_method",
    "X-Original-URI": "$request_uri",
}

SECURITY_HEADERS = {
    "X-Request-ID": "$request_id",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Content-Security-Policy": "$content_security",
}
_OWN_ONLY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
# Swagger UI and DRF's browsable API style elements inline; unfold also runs Alpine expressions.
_INLINE_STYLES = _OWN_ONLY.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")
_INLINE_SCRIPTS = _INLINE_STYLES.replace(
    "script-src 'self'", "script-src 'self' 'unsafe-inline' 'unsafe-eval'"
)
CONTENT_SECURITY = {
    Kind.PAGE: _OWN_ONLY,
    Kind.API: _INLINE_STYLES,
    Kind.DOCS: _INLINE_STYLES,
    Kind.ADMIN: _INLINE_SCRIPTS,
}


@dataclass(frozen=True)
class Options:
    """Where nginx listens, what stands behind it, and where its files go."""

    listen: str
    run_dir: Path
    static: Path
    upstreams: dict[str, str]
    exempt_ips: Sequence[str] = ()
    workers: str = "auto"
    access_log: str = ""
    error_log: str = ""
    user: str = field(default_factory=lambda: _own_user())


class _Template(string.Template):
    """nginx's own variables begin with a dollar, so the placeholders are %{name}."""

    delimiter = "%"


def render(options: Options) -> str:
    """Return the text of nginx.conf."""
    access_log = options.access_log or str(options.run_dir / "access.log")
    buffered = "" if access_log == "off" else " json buffer=32k flush=1s"
    return _Template(TEMPLATE.read_text()).substitute(
        user=f"user {options.user};\n" if options.user else "",
        workers=options.workers,
        run_dir=options.run_dir,
        error_log=options.error_log or options.run_dir / "error.log",
        access_log=access_log + buffered,
        listen=options.listen,
        static=options.static,
        plain_path=PLAIN_PATH,
        uri_length_over=URI_LENGTH_MAX + 1,
        exempt=_block((f"{ip} 1;" for ip in options.exempt_ips), indent=8),
        content_security=_block(_content_security(), indent=8),
        hide_headers=_block((f"proxy_hide_header {name};" for name in _set_here()), indent=4),
        upstream_headers=_block(_set_headers(UPSTREAM_HEADERS), indent=4),
        limit_zones=_block(_limit_zones(), indent=4),
        upstreams=_block(_upstreams(options), indent=4),
        server_headers=_block(add_headers(), indent=8),
        error_pages=_block(error_pages(), indent=8),
        static_headers=_block(add_headers({"Cache-Control": "$static_caching"}), indent=12),
        authorize=_block(_authorize(), indent=12),
        locations="\n\n".join(_block(_location(route), indent=8) for route in ROUTES),
        problems="\n".join(_block(lines, indent=8) for lines in problem_locations(add_headers())),
    )


def add_headers(more: dict[str, str] | None = None) -> list[str]:
    """Return add_header lines: always all, as a location with one of its own inherits none."""
    headers = SECURITY_HEADERS | (more or {})
    return [f'add_header {name} "{value}" always;' for name, value in headers.items()]


def _set_here() -> tuple[str, ...]:
    return (*SECURITY_HEADERS, "Server")


def _set_headers(headers: dict[str, str]) -> list[str]:
    overwritten = {name.lower() for name in headers}
    dropped = [name for name in DROPPED_HEADERS if name.lower() not in overwritten]
    return [f"proxy_set_header {name} {value};" for name, value in headers.items()] + [
        f'proxy_set_header {name} "";' for name in dropped
    ]


def _limit_zones() -> Iterable[str]:
    for limit in LIMITS:
        key = "$read_key" if limit is READS else "$write_key"
        yield f"limit_req_zone {key} zone={limit.name}:{LIMIT_ZONE_SIZE} rate={limit.by_ip};"


def _content_security() -> Iterable[str]:
    yield f'default "{_OWN_ONLY}";'
    for kind, policy in CONTENT_SECURITY.items():
        yield f'{kind} "{policy}";'


def _upstreams(options: Options) -> Iterable[str]:
    for name in UPSTREAMS:
        yield f"upstream {name} {{"
        # A timeout of one request must not shut the others out: there is no second server.
        yield f"    server {options.upstreams[name]} max_fails=0 max_conns={CONNECTIONS_MAX};"
        yield f"    zone {name} 64k;"
        yield "    keepalive 64;"
        # Below gunicorn's own keep-alive: the side that sends must be the one that hangs up.
        yield "    keepalive_timeout 30s;"
        yield "}"


def _authorize() -> list[str]:
    return [
        f"proxy_pass http://{GATEWAY}/internal/gateway/authorize;",
        "proxy_pass_request_body off;",
        "proxy_pass_request_headers off;",
        *(f"proxy_set_header {name} {value};" for name, value in AUTHORIZE_HEADERS.items()),
        "proxy_read_timeout 3s;",
        # Asking twice does no harm.
        "proxy_next_upstream error timeout;",
        "proxy_next_upstream_tries 2;",
    ]


def _location(route: Route) -> list[str]:
    methods = route.allowed_methods
    lines = [
        f"set $kind {route.kind};",
        f'set $allow "{", ".join(methods)}";',
        f"if ($request_method !~ ^({'|'.join(methods)})$) {{",
        "    return 405;",
        "}",
    ]
    zones = {route.limit_of(method) for method in methods}
    lines += [
        f"limit_req zone={limit.name} burst={limit.burst} nodelay;"
        for limit in LIMITS
        if limit in zones
    ]
    lines += _authorization(route)
    if set(methods) == route.safe_methods:
        lines += ["proxy_next_upstream error timeout;", "proxy_next_upstream_tries 2;"]
    if route.cache_seconds:
        lines += _micro_cache(route.cache_seconds)
    lines.append(f"proxy_pass http://{route.upstream};")
    location = [f"location {_matcher(route)} {{", *(f"    {line}" for line in lines), "}"]
    if route.is_prefix:
        bare = route.prefix.rstrip("/")
        location += [f"location = {bare} {{", f"    return 301 {route.prefix};", "}"]
    return location


def _matcher(route: Route) -> str:
    if route.is_exact:
        return f"= {route.path}"
    return f"^~ {route.prefix}" if route.is_prefix else f'~ "^{route.regex}$"'


def _authorization(route: Route) -> list[str]:
    if route.open_methods == set(route.allowed_methods):
        return []
    reads_are_open = route.safe_methods <= route.open_methods
    return [
        f"auth_request /.authorize{'-writes' if reads_are_open else ''};",
        "auth_request_set $refusal $upstream_http_x_refusal;",
        "auth_request_set $login_url $upstream_http_x_login;",
        "auth_request_set $retry_after $upstream_http_retry_after;",
    ]


def _micro_cache(seconds: int) -> list[str]:
    """One copy for everybody: so the request that fills it must carry nothing of anybody's."""
    return [
        "proxy_cache micro;",
        'proxy_cache_key "$uri?$args";',
        f"proxy_cache_valid 200 {seconds}s;",
        "proxy_cache_lock on;",
        "proxy_cache_lock_timeout 2s;",
        "proxy_cache_use_stale updating;",
        # The service's own caching headers are for browsers; Vary and cookies have no say here, as
        # neither cookies nor tokens are sent on, and pages for browsers are never kept.
        "proxy_ignore_headers Cache-Control Expires Set-Cookie Vary;",
        "proxy_hide_header Set-Cookie;",
        "set $no_copy 0;",
        "if ($problem_format = page) {",
        "    set $no_copy 1;",
        "}",
        "proxy_cache_bypass $no_copy;",
        "proxy_no_cache $no_copy;",
        *_set_headers(UPSTREAM_HEADERS | {"Authorization": '""', "Cookie": '""'}),
    ]


def _block(lines: Iterable[str], *, indent: int) -> str:
    return "\n".join(" " * indent + line for line in lines)


def _own_user() -> str:
    """As root, nginx would change to a user who cannot read a private run directory."""
    if os.geteuid() != 0:
        return ""
    return f"{pwd.getpwuid(0).pw_name} {grp.getgrgid(os.getegid()).gr_name}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m gateway.nginx", description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="where to write nginx.conf")
    parser.add_argument("--listen", default="127.0.0.1:8000", help="ADDRESS:PORT (%(default)s)")
    parser.add_argument("--run-dir", type=Path, required=True, help="pid, logs, temporary files")
    parser.add_argument("--static", type=Path, required=True, help="the collected static files")
    for name in UPSTREAMS:
        parser.add_argument(f"--{name}", required=True, metavar="HOST:PORT")
    parser.add_argument(
        "--exempt-ip", action="append", default=[], help="an address or network without limits"
    )
    parser.add_argument("--workers", default="auto", help="worker processes (%(default)s)")
    parser.add_argument("--access-log", default="", help="a path, /dev/stdout or off")
    parser.add_argument("--error-log", default="", help="a path or stderr")
    parser.add_argument("--user", help="workers' user when started as root; default: the same one")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Write the configuration that the command line asks for."""
    args = _parser().parse_args(argv)
    run_dir: Path = args.run_dir.resolve()
    run_dir.mkdir(parents=True, exist_ok=True)
    options = Options(
        listen=args.listen,
        run_dir=run_dir,
        static=args.static.resolve(),
        upstreams={name: getattr(args, name) for name in UPSTREAMS},
        exempt_ips=args.exempt_ip,
        workers=args.workers,
        access_log=args.access_log,
        error_log=args.error_log,
        **({} if args.user is None else {"user": args.user}),
    )
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(render(options))


if __name__ == "__main__":
    main()
