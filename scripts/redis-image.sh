#!/usr/bin/env bash
# See to it that this engine has redis:7 and redis:7-alpine, which compose.yaml and the tests name.
#
# Each is kept if there, else pulled, else made from this machine's redis-server (7 or newer) and its libraries. Such
# a stand-in takes the same arguments as the official image and listens in the same way; remove the image to be rid
# of it.
set -euo pipefail

docker=docker
if [ -x /usr/bin/docker ]; then docker=/usr/bin/docker; fi

say() { printf 'redis image: %s\n' "$*"; }
die() {
  printf 'redis image: %s\n' "$*" >&2
  exit 1
}

have() { "$docker" image inspect "$1" >/dev/null 2>&1; }

# Copies commands with the libraries that they load, at their own paths.
copy_commands() {
  local root=$1 command path library
  shift
  # Debian's /bin and /lib are links into /usr: without them the copies would end up in two trees.
  mkdir -p "$root"/usr/{bin,sbin,lib,lib64}
  for path in bin sbin lib lib64; do ln -s "usr/$path" "$root/$path"; done
  for command in "$@"; do
    path=$(command -v "$command") || die "$command is not installed: run scripts/engine.sh install, or load a redis:7 image"
    cp -L --parents "$path" "$root"
    ldd "$path" | grep -o '/[^ ]*' | while read -r library; do cp -L --parents "$library" "$root"; done
  done
}

add_settings() {
  local root=$1
  mkdir -p "$root"/{data,etc,tmp}
  chmod 1777 "$root"/{data,tmp} # a new volume at /data takes the mode over, for whichever user
  printf 'root:x:0:0::/:/bin/sh\nredis:x:999:999::/data:/bin/sh\n' >"$root/etc/passwd"
  printf 'root:x:0:\nredis:x:999:\n' >"$root/etc/group"
  cat >"$root/usr/bin/docker-entrypoint.sh" <<'ENTRYPOINT'
#!/bin/sh
# As in the official image: options or a configuration file alone mean redis-server.
case ${1:-} in -* | *.conf) set -- redis-server "$@" ;; esac
# The official image is compiled without protected mode, which refuses every peer outside the container. A
# configuration file decides for itself, and --help and --version stand alone.
case "${1:-} ${2:-}" in
"redis-server --help" | "redis-server --version") ;;
"redis-server " | "redis-server --"*)
  shift
  set -- redis-server --protected-mode no "$@"
  ;;
esac
exec "$@"
ENTRYPOINT
  chmod 755 "$root/usr/bin/docker-entrypoint.sh"
}

make_stand_in() {
  local version
  version=$(redis-server --version | grep -o 'v=[0-9]*' | cut -c3-) || die "redis-server is not installed: run scripts/engine.sh install"
  [ "$version" -ge 7 ] || die "redis-server $version is too old: 7 or newer is needed, or load a redis:7 image"
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  chmod 755 "$work"
  copy_commands "$work" redis-server redis-cli sh
  add_settings "$work"
  tar -C "$work" --owner=0 --group=0 -c . | "$docker" import \
    --change 'ENV PATH=/usr/bin' --change 'USER 999:999' --change 'WORKDIR /data' --change 'VOLUME /data' \
    --change 'EXPOSE 6379' --change 'ENTRYPOINT ["docker-entrypoint.sh"]' --change 'CMD ["redis-server"]' \
    --change 'LABEL org.fngw.role=redis-stand-in' - "$1" >/dev/null
}

"$docker" version >/dev/null 2>&1 || die "no Docker engine answers: run scripts/engine.sh start"
stand_in=
for image in redis:7 redis:7-alpine; do
  if have "$image"; then
    say "$image is there"
  elif [ -n "$stand_in" ]; then
    "$docker" tag "$stand_in" "$image"
    say "$image is the same as $stand_in"
  elif "$docker" pull -q "$image" >/dev/null 2>&1; then
    say "pulled $image"
  else
    make_stand_in "$image"
    stand_in=$image
    say "$image could not be pulled: made it from this machine's redis-server"
  fi
done
