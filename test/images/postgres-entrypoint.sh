#!/bin/sh
# The part of the public Postgres image's contract that the tests use:
# POSTGRES_USER, POSTGRES_PASSWORD, POSTGRES_DB, POSTGRES_HOST_AUTH_METHOD,
# POSTGRES_INITDB_ARGS, PGDATA, and a command of the form `postgres -c name=value`.
set -eu
: "${POSTGRES_USER:=postgres}" "${POSTGRES_HOST_AUTH_METHOD:=scram-sha-256}"
: "${POSTGRES_DB:=$POSTGRES_USER}"

case ${1:-} in
  '' | -*) set -- postgres "$@" ;;
  postgres) ;;
  *) exec "$@" ;;
esac

if [ ! -s "$PGDATA/PG_VERSION" ]; then
  if [ -z "${POSTGRES_PASSWORD:-}" ] && [ "$POSTGRES_HOST_AUTH_METHOD" != trust ]; then
    echo >&2 "set POSTGRES_PASSWORD, or POSTGRES_HOST_AUTH_METHOD=trust"
    exit 1
  fi
  umask 077
  printf '%s\n' "${POSTGRES_PASSWORD:-unused}" >/tmp/password
  # shellcheck disable=SC2086 # arguments, meant to be split
  initdb -D "$PGDATA" -U "$POSTGRES_USER" --pwfile=/tmp/password --auth-local=trust --auth-host=scram-sha-256 \
    -E UTF8 --locale=C --no-sync ${POSTGRES_INITDB_ARGS:-}
  rm -f /tmp/password
  printf 'host %s all all %s\n' all "$POSTGRES_HOST_AUTH_METHOD" replication "$POSTGRES_HOST_AUTH_METHOD" >>"$PGDATA/pg_hba.conf"
  echo "listen_addresses = '*'" >>"$PGDATA/postgresql.conf"
  if [ "$POSTGRES_DB" != postgres ]; then
    printf 'CREATE DATABASE "%s";\n' "$POSTGRES_DB" | postgres --single -j -D "$PGDATA" postgres >/dev/null
  fi
fi

exec "$@"
