#!/usr/bin/env bash
# Run once by MySQL's image when its data folder is new: one database and one user per service,
# none able to reach another's.
set -euo pipefail

for service in auth catalog inventory order; do
  password_variable="${service^^}_DB_PASSWORD"
  password="${!password_variable:?is not set}"
  if [[ ! $password =~ ^[A-Za-z0-9_-]{16,}$ ]]; then
    # It also stands in a URL; make_env.py makes such passwords.
    echo "$password_variable must be 16 or more of A-Z a-z 0-9 _ -" >&2
    exit 1
  fi
  MYSQL_PWD="$MYSQL_ROOT_PASSWORD" mysql --user=root <<SQL
CREATE DATABASE \`flashsale_$service\` CHARACTER SET utf8mb4;
CREATE USER '$service'@'%' IDENTIFIED BY '$password';
GRANT ALL ON \`flashsale\\_$service\`.* TO '$service'@'%';
SQL
done
