#!/usr/bin/env bash
# engine.sh up|down: a Docker engine for the container tests, on a machine
# that has none. For CI on Debian or Ubuntu; needs root. Idempotent: `up` uses
# an engine that already answers, `down` stops only the one that `up` started.
set -euo pipefail

state=${WALPOST_ENGINE_STATE:-/var/tmp/walpost-engine}

say() { printf '[engine %3ss] %s\n' "$SECONDS" "$*"; }

answers() { docker info --format '{{.ServerVersion}}' 2>/dev/null | grep -q .; }

install_engine() {
  command -v dockerd >/dev/null && command -v iptables >/dev/null && command -v cgroupfs-mount >/dev/null && return
  command -v apt-get >/dev/null || { say "no dockerd, and no apt-get to install it with"; return 1; }
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends docker.io iptables cgroupfs-mount </dev/null >/dev/null
  say "installed docker.io"
}

# Without an init system nobody has mounted the cgroup hierarchies, and runc
# refuses to start anything.
mount_cgroups() { grep -qE ' cgroup2? ' /proc/mounts || cgroupfs-mount; }

# launch FLAG...: starts dockerd and waits until it answers or ends.
launch() {
  setsid dockerd "$@" >"$state/dockerd.log" 2>&1 </dev/null &
  local pid=$!
  echo "$pid" >"$state/pid"
  for _ in $(seq 150); do
    answers && { say "dockerd runs ${*:+with $*}"; return 0; }
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.2
  done
  say "dockerd ${*:-} did not come up: $(grep -iE 'level=(fatal|error)|failed' "$state/dockerd.log" | tail -1)"
  kill "$pid" 2>/dev/null || true
  wait "$pid" 2>/dev/null || true
  rm -f "$state/pid"
  return 1
}

up() {
  if answers; then say "an engine already answers"; return; fi
  [ "$(id -u)" = 0 ] || { say "no engine answers, and starting one needs root"; return 1; }
  install_engine
  if answers; then say "the package has started it"; return; fi
  mount_cgroups
  mkdir -p "$state"
  # A pid file left by a machine that went down keeps dockerd from starting.
  pgrep -x dockerd >/dev/null || rm -f /var/run/docker.pid
  # The second try is for kernels without NAT tables; docker-proxy still
  # publishes ports there.
  launch || launch --iptables=false --ip6tables=false
}

down() {
  [ -s "$state/pid" ] || return 0
  local pid
  pid=$(cat "$state/pid")
  rm -f "$state/pid"
  [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = dockerd ] || return 0
  kill -TERM "$pid"
  for _ in $(seq 150); do
    kill -0 "$pid" 2>/dev/null || { say "dockerd stopped"; return 0; }
    sleep 0.1
  done
  say "dockerd (pid $pid) does not stop"
  return 1
}

case ${1:-} in
  up) up ;;
  down) down ;;
  *) echo "usage: $0 up|down" >&2; exit 2 ;;
esac
