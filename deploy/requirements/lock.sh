#!/usr/bin/env bash
# Writes the locked, hashed requirement files beside this script from pyproject.toml.
# Needs uv on PATH (or UV=/path/to/uv). All files hold the same versions: dev is compiled
# first with every extra, and the others are constrained by it.
set -euo pipefail
cd "$(dirname "$0")/../.."
uv=${UV:-uv}
folder=deploy/requirements
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# Django 6 needs Python 3.12; the lock stays on the LTS that runs on 3.11 too.
echo 'django<6' >"$scratch/constraints.txt"

compile() { # compile FILE CONSTRAINTS [uv options]
  local file=$1 constraints=$2
  shift 2
  "$uv" pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-annotate --no-header \
    --python-version 3.11 --constraint "$constraints" "$@" -o "$scratch/$file"
  { echo '# Locked from pyproject.toml by deploy/requirements/lock.sh; do not edit by hand.'; cat "$scratch/$file"; } \
    >"$folder/$file"
}

compile all.txt "$scratch/constraints.txt" pyproject.toml --extra embedded --extra dev --extra mysql --extra nats --extra stripe
rm "$folder/all.txt"
grep -v -- '--hash=' "$scratch/all.txt" | sed 's/ *\\$//' >"$scratch/versions.txt"

compile core.txt "$scratch/versions.txt" pyproject.toml
compile local.txt "$scratch/versions.txt" pyproject.toml --extra embedded
compile dev.txt "$scratch/versions.txt" pyproject.toml --extra embedded --extra dev --extra nats --extra stripe
for extra in mysqlclient:mysql nats-py:nats stripe:stripe; do
  file=${extra#*:}
  grep "^${extra%:*}==" "$scratch/versions.txt" >"$scratch/$file.in"
  compile "$file.txt" "$scratch/versions.txt" "$scratch/$file.in"
done
