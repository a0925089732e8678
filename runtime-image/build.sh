#!/usr/bin/env bash
# Make fngw/base:pyX.Y and fngw/runtime:pyX.Y, or find that they are up to date.
#
#   PYTHON=3.11       the replicas' Python
#   BASE=IMAGE        what they stand on: a Debian with python3, such as python:3.11-slim-bookworm. Unset, or where
#                     it cannot be pulled, a base is made from Debian packages (bootstrap-base.sh)
#   UV=uv             the uv to install the runtime's needs with
#   FNGW_CACHE_DIR    locks and bootstrapped bases (~/.cache/fngw); remove it to get newer versions of the needs
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
repo=$(dirname "$here")
python=${PYTHON:-3.11}
bootstrapped=fngw/debian:py$python
cache=${FNGW_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/fngw}/locks

docker=docker
if [ -x /usr/bin/docker ]; then docker=/usr/bin/docker; fi
export DOCKER=$docker

say() { printf 'images: %s\n' "$*"; }
die() {
  printf 'images: %s\n' "$*" >&2
  exit 1
}

have() { "$docker" image inspect "$1" >/dev/null 2>&1; }
label() { "$docker" image inspect --format "{{index .Config.Labels \"org.fngw.$2\"}}" "$1" 2>/dev/null; }

find_uv() {
  if command -v "${UV:-uv}" >/dev/null; then
    echo "${UV:-uv}"
  elif [ -x "$repo/.venv/bin/uv" ]; then
    echo "$repo/.venv/bin/uv"
  else
    die "uv is not installed: put it on PATH, or set UV to where it is"
  fi
}

# Sets `base` to an image that this engine has. A base bootstrapped before is preferred to another try at a pull:
# it exists because no registry answered, and the engine may wait long for one that does not.
choose_base() {
  base=${BASE:-python:$python-slim-bookworm}
  if [ -z "${BASE:-}" ] && have "$bootstrapped"; then
    base=$bootstrapped
  elif ! have "$base" && ! pull "$base"; then
    have "$bootstrapped" || "$here/bootstrap-base.sh" "$python" "$bootstrapped"
    base=$bootstrapped
  fi
}

pull() {
  say "pulling $1"
  "$docker" pull -q "$1" >/dev/null || {
    say "$1 could not be pulled"
    return 1
  }
}

# Everything that decides what the images hold goes into the context, so that the digest is simply that of its files.
stage() {
  local package
  cp "$here/Dockerfile" "$context/"
  cp -L "${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}" "$context/ca-certificates.crt"
  mkdir "$context/runtime"
  for package in "$repo/sdk/fngw" "$here/fngw_runtime"; do
    cp -R "$package" "$context/runtime/"
  done
  find "$context/runtime" -name __pycache__ -prune -exec rm -rf {} +
  # A umask must not decide what the replicas' user can read.
  chmod -R u=rwX,go=rX "$context"
  cp "$(lock)" "$context/needs.lock"
  # By its layers: an import or a pull of the same files may carry another id.
  "$docker" image inspect --format '{{.RootFS.Layers}}' "$base" >"$context/base.layers"
}

# Prints the path of the needs' lock for this Python. Resolved once per needs.in, so that nothing here asks the
# network when all is up to date.
lock() {
  local path
  path=$cache/py$python-$platform-$(sha256sum <"$here/needs.in" | cut -c1-12).lock
  if [ ! -s "$path" ]; then
    mkdir -p "$cache"
    "$uv" pip compile -q "${target[@]}" --generate-hashes --no-emit-index-url --no-header --no-annotate \
      "$here/needs.in" -o "$path.part" >/dev/null
    mv "$path.part" "$path"
  fi
  echo "$path"
}

# Wheels for the engine's machine, which need not be this one's. glibc 2.28 is older than any Debian in support.
uv_platform() {
  local arch
  arch=$("$docker" version --format '{{.Server.Arch}}')
  case $arch in
  amd64) echo x86_64-manylinux_2_28 ;;
  arm64) echo aarch64-manylinux_2_28 ;;
  *) die "no wheels are known for the engine's architecture, $arch" ;;
  esac
}

digest() {
  (cd "$context" && find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum | cut -c1-64)
}

# Sets what the builder must know of the base's Python to put environments on it: where it lies, and its C library.
check_base() {
  local found
  read -r found interpreter glibc < <("$docker" run --rm --network none --entrypoint python3 "$base" -c \
    'import os, platform, sys; print("%d.%d" % sys.version_info[:2], os.path.realpath(sys.executable),
      platform.libc_ver()[1])') || die "$base has no working python3"
  [ "$found" = "$python" ] ||
    die "$base has Python $found, not $python: give a BASE that fits, or run make images PYTHON=$found"
}

install_needs() {
  "$uv" pip install -q "${target[@]}" --target "$context/site-packages" --no-deps --require-hashes \
    --link-mode copy -r "$context/needs.lock"
  # Scripts name this machine's interpreter, and nothing calls them.
  rm -rf "$context/site-packages/bin" "$context/site-packages/.lock"
  chmod -R u=rwX,go=rX "$context/site-packages"
}

build() {
  local role=$1
  "$docker" build --network none --target "$role" --build-arg "BASE=$base" \
    --label "org.fngw.python=$python" --label "org.fngw.digest=$digest" \
    --label "org.fngw.interpreter=$interpreter" --label "org.fngw.glibc=$glibc" \
    -t "fngw/$role:py$python" "$context" >"$context.log" 2>&1 || {
    tail -n 30 "$context.log" >&2
    die "fngw/$role:py$python could not be built: the end of the build's output is above"
  }
  say "built fngw/$role:py$python"
}

[[ $python =~ ^3\.[0-9]+$ ]] || die "PYTHON=$python: a version such as 3.11 is needed"
"$docker" version >/dev/null 2>&1 || die "no Docker engine answers: run scripts/engine.sh start"
uv=$(find_uv)
platform=$(uv_platform)
target=(--python-version "$python" --python-platform "$platform" --only-binary :all:)
context=$(mktemp -d)
trap 'rm -rf "$context" "$context.log"' EXIT

choose_base
stage
digest=$(digest)
if [ "$(label "fngw/base:py$python" digest)" = "$digest" ] && [ "$(label "fngw/runtime:py$python" digest)" = "$digest" ]; then
  say "fngw/base:py$python and fngw/runtime:py$python are up to date (${digest:0:12})"
  exit 0
fi
check_base
install_needs
build base
build runtime
