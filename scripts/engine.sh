#!/usr/bin/env bash
# A Docker engine for a plain Debian or Ubuntu machine, with or without an init system.
#
#   scripts/engine.sh install   the Debian packages that fngw's images and tests need
#   scripts/engine.sh start     use the engine that answers, else start dockerd in the background
#   scripts/engine.sh stop      stop a dockerd that `start` started, and no other
#   scripts/engine.sh status    which engine answers (exit 1 when none does)
#
# DOCKER_HOST is honoured. FNGW_ENGINE_WAIT: seconds to wait for an engine to come or go (60).
set -euo pipefail

state_dir=/var/run/fngw-engine
pid_file=$state_dir/dockerd.pid
log_file=$state_dir/dockerd.log
host=${DOCKER_HOST:-unix:///var/run/docker.sock}
wait_s=${FNGW_ENGINE_WAIT:-60}

# A client elsewhere on PATH may belong to another product: the packaged one fits the packaged engine.
docker=docker
if [ -x /usr/bin/docker ]; then docker=/usr/bin/docker; fi

say() { printf 'engine: %s\n' "$*"; }
die() {
  printf 'engine: %s\n' "$*" >&2
  exit 1
}

need_root() {
  [ "$(id -u)" -eq 0 ] || die "$1 needs root: run it again with sudo"
}

is_debian() {
  [ -r /etc/os-release ] && grep -qE '^(ID|ID_LIKE)=.*(debian|ubuntu)' /etc/os-release
}

answers() { timeout 10 "$docker" version >/dev/null 2>&1; }

describe() {
  "$docker" version --format 'Docker {{.Server.Version}}, API {{.Server.APIVersion}}, {{.Server.Os}}/{{.Server.Arch}}'
}

# The process id of the dockerd that this script started; fails when there is none (any more).
own_pid() {
  local pid
  pid=$(cat "$pid_file" 2>/dev/null) || return 1
  # One that was killed may stay a zombie for a while: its name is there, it is not.
  grep -qs '^State:[[:space:]]*Z' "/proc/$pid/status" && return 1
  [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = dockerd ] && echo "$pid"
}

missing_packages() {
  # By command, not by package: a dockerd from another source conflicts with Debian's docker.io.
  command -v dockerd >/dev/null || echo docker.io
  command -v iptables >/dev/null || echo iptables
  command -v debootstrap >/dev/null || echo debootstrap
  command -v redis-server >/dev/null || echo redis-server
  command -v docker-registry >/dev/null || echo docker-registry
  command -v nginx >/dev/null || [ -x /usr/sbin/nginx ] || echo nginx
  command -v docker-compose >/dev/null || "$docker" compose version >/dev/null 2>&1 || echo docker-compose
  command -v cc >/dev/null || echo gcc
  [ -e /usr/include/stdio.h ] || echo libc6-dev
  [ -s /etc/ssl/certs/ca-certificates.crt ] || echo ca-certificates
}

install() {
  local missing
  mapfile -t missing < <(missing_packages)
  if [ ${#missing[@]} -eq 0 ]; then
    say "everything is installed already"
    return
  fi
  is_debian || die "only Debian and Ubuntu are handled here: install by hand what ${missing[*]} provide on Debian"
  need_root install
  say "installing ${missing[*]}"
  if apt_install "${missing[@]}"; then
    quieten_nginx "${missing[@]}"
    return
  fi
  # Absent or outdated package lists are the common reason for a failure, and the only one mended here.
  say "refreshing the package lists and trying once more"
  apt-get update -q
  apt_install "${missing[@]}" || die "apt-get could not install ${missing[*]}: its messages are above"
  quieten_nginx "${missing[@]}"
}

# Tests start an nginx of their own: the package's service would take port 80.
quieten_nginx() {
  [[ " $* " != *" nginx "* ]] || ! command -v systemctl >/dev/null || systemctl disable --now nginx >/dev/null 2>&1 || true
}

apt_install() {
  DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@"
}

start() {
  if answers; then
    say "already running: $(describe)"
    return
  fi
  [[ $host == unix://* ]] ||
    die "no engine answers at DOCKER_HOST=$host, and only a local one (unix://…) can be started here"
  command -v dockerd >/dev/null || die "dockerd is not installed: run '$0 install'"
  need_root start
  mkdir -p "$state_dir"
  local child=
  if ! own_pid >/dev/null; then
    # Left by one that was killed; dockerd and its containerd take a zombie's for a living one.
    rm -f "$pid_file" /var/run/docker/containerd/containerd.pid
    # A session of its own, so that neither Ctrl-C nor the end of this terminal takes the containers down.
    setsid dockerd --host "$host" --pidfile "$pid_file" >"$log_file" 2>&1 </dev/null &
    child=$!
  fi
  wait_until answers_or_ended "$child" || true
  answers || {
    tail -n 20 "$log_file" >&2
    die "dockerd does not answer at $host: the end of $log_file is above"
  }
  say "started: $(describe)"
}

stop() {
  local pid
  if ! pid=$(own_pid); then
    say "no dockerd started by this script is running"
    return
  fi
  need_root stop
  kill -TERM "$pid"
  wait_until gone || die "dockerd (process $pid) is still running after $wait_s s: see $log_file"
  say "stopped"
}

answers_or_ended() { answers || { [ -n "$1" ] && ! kill -0 "$1" 2>/dev/null; }; }

gone() { ! own_pid >/dev/null; }

wait_until() {
  local deadline=$((SECONDS + wait_s))
  until "$@"; do
    [ "$SECONDS" -lt "$deadline" ] || return 1
    sleep 0.2
  done
}

status() {
  answers || die "no engine answers at $host: run '$0 start'"
  if own_pid >/dev/null; then
    say "$(describe), started by this script (log: $log_file)"
  else
    say "$(describe)"
  fi
}

case ${1:-} in
install | start | stop | status) "$1" ;;
*)
  sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
  exit 2
  ;;
esac
