#!/usr/bin/env bash
# Runs the system in containers; see README.md beside this file.
#
#   run.sh start                   build what changed, migrate, start, wait until it is ready
#   run.sh stop                    stop everything; the data is kept
#   run.sh reset [--yes]           stop everything and delete all data; asks first
#   run.sh status                  the state of each container
#   run.sh logs [NAME …]           follow the logs
#   run.sh manage SERVICE ARG …    the service's manage.py
#   run.sh rotate-key ISSUER       give a service a new signing key; the old ones stay valid
set -euo pipefail
cd "$(dirname "$0")"
env_file=../.env
ready_seconds_max=60

fail() {
  echo "run.sh: $*" >&2
  exit 1
}

compose() {
  local files=(--file compose.yaml)
  grep -qs '^PAYMENT_PROVIDER=stripe$' "$env_file" && files+=(--file stripe.yaml)
  docker compose --env-file "$env_file" "${files[@]}" "$@"
}

wait_until_ready() {
  local deadline=$((SECONDS + ready_seconds_max))
  # nginx looks its upstreams up when it reads its configuration: again, as they may be new ones.
  until compose exec -T nginx sh -c \
    'nginx -e stderr -s reload && sleep 1 && wget -q -O /dev/null http://127.0.0.1:8080/readyz'; do
    ((SECONDS < deadline)) || fail "not ready after $ready_seconds_max s; see: run.sh status, run.sh logs"
    sleep 1
  done
}

start() {
  # Waits for what nginx depends on: the databases, the jobs, and every service.
  compose up --detach --build --remove-orphans
  wait_until_ready
  echo "Ready: $(grep '^PUBLIC_URL=' "$env_file" | cut -d= -f2-)"
}

reset() {
  if [[ ${1:-} != --yes ]]; then
    read -r -p "This deletes all databases, events and keys. Type 'yes' to go on: " answer || answer=
    [[ $answer == yes ]] || fail "nothing was deleted"
  fi
  compose down --volumes --remove-orphans
}

manage() {
  local service=${1:?run.sh manage SERVICE ARG …}
  shift
  local folder=services/$service
  [[ $service != gateway ]] || folder=gateway
  compose exec "$service" python "$folder/manage.py" "$@"
}

rotate_key() {
  # Only the keys' own job may write keys.
  compose run --rm --no-deps keys python -m deploy.container.make_keys --add "${1:?run.sh rotate-key ISSUER}"
}

usage() {
  sed -n '2,10s/^# \{0,1\}//p' "$(basename "$0")" >&2
  exit 2
}

command=${1:-}
case $command in
  start | stop | reset | status | logs | manage | rotate-key) shift ;;
  *) usage ;;
esac
command -v docker >/dev/null || fail "docker is not installed"
# Docker wants every value even to stop; on the first start there is none yet.
[[ -f $env_file ]] || ./make_env.py

case $command in
  stop) compose down --remove-orphans ;;
  status) compose ps --all ;;
  logs) compose logs --follow --tail=200 "$@" ;;
  rotate-key) rotate_key "$@" ;;
  *) "$command" "$@" ;;
esac
