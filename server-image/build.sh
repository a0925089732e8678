#!/usr/bin/env bash
# Make fngw/server, which compose.yaml runs, or find that it is up to date.
#
#   PYTHON=3.11       the servers' Python
#   BASE=IMAGE        what it stands on: a Debian with that Python as python3. Unset: fngw/base:pyX.Y, which
#                     runtime-image/build.sh makes, without a registry where none answers
#   IMAGE=fngw/server what to call it
#   UV=uv             the uv to build and install with
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
repo=$(dirname "$here")
python=${PYTHON:-3.11}
image=${IMAGE:-fngw/server}

docker=docker
if [ -x /usr/bin/docker ]; then docker=/usr/bin/docker; fi

say() { printf 'server image: %s\n' "$*"; }
die() {
  printf 'server image: %s\n' "$*" >&2
  exit 1
}

have() { "$docker" image inspect "$1" >/dev/null 2>&1; }

find_uv() {
  if command -v "${UV:-uv}" >/dev/null; then
    echo "${UV:-uv}"
  elif [ -x "$repo/.venv/bin/uv" ]; then
    echo "$repo/.venv/bin/uv"
  else
    die "uv is not installed: put it on PATH, or set UV to where it is"
  fi
}

# Sets `base` to an image that this engine has, with the right Python.
choose_base() {
  local found
  base=${BASE:-fngw/base:py$python}
  if [ -z "${BASE:-}" ]; then
    have "$base" || PYTHON=$python UV=$uv "$repo/runtime-image/build.sh"
  elif ! have "$base"; then
    say "pulling $base"
    "$docker" pull -q "$base" >/dev/null || die "$base could not be pulled: leave BASE out to have one made here"
  fi
}

check_base() {
  local found
  found=$("$docker" run --rm --network none --entrypoint python3 "$base" -c \
    'import sys; print("%d.%d" % sys.version_info[:2])') || die "$base has no working python3"
  [ "$found" = "$python" ] || die "$base has Python $found, not $python: give a BASE that fits, or PYTHON=$found"
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

# Everything that decides what the image holds, apart from the needs themselves: those follow from their lock.
stage() {
  cp "$here/Dockerfile" "$here/build.sh" "$context/"
  cp "$repo/requirements.lock" "$context/needs.lock"
  # By its layers: an import or a pull of the same files may carry another id.
  "$docker" image inspect --format '{{.RootFS.Layers}}' "$base" >"$context/base.layers"
  "$uv" build -q --wheel --out-dir "$work/wheel" "$repo"
  "$uv" pip install -q "${target[@]}" --target "$context/fngw" --no-deps --link-mode copy "$work"/wheel/fngw-*.whl
  clean "$context/fngw"
  # They name this machine's paths.
  rm -f "$context"/fngw/fngw-*.dist-info/{RECORD,direct_url.json,uv_cache.json}
}

# The lock is for development, too: as constraints, it pins versions and hashes of what the servers need of it.
install_needs() {
  "$uv" pip install -q "${target[@]}" --target "$context/needs" --link-mode copy \
    --constraint "$context/needs.lock" --requirement "$repo/pyproject.toml" --extra server
  clean "$context/needs"
}

# Scripts name this machine's interpreter; uv is none. A umask must not decide what can be read.
clean() {
  rm -rf "$1/.lock"
  if [ -d "$1/bin" ]; then find "$1/bin" -type f ! -name uv -delete; fi
  find "$1" -name __pycache__ -prune -exec rm -rf {} +
  chmod -R u=rwX,go=rX "$1"
}

digest() {
  (cd "$context" && find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum | cut -c1-64)
}

build() {
  "$docker" build --network none --build-arg "BASE=$base" --build-arg "PYTHON=$python" \
    --label "org.fngw.python=$python" --label "org.fngw.digest=$digest" -t "$image" "$context" \
    >"$work/build.log" 2>&1 || {
    tail -n 30 "$work/build.log" >&2
    die "$image could not be built: the end of the build's output is above"
  }
  say "built $image"
}

[[ $python =~ ^3\.[0-9]+$ ]] || die "PYTHON=$python: a version such as 3.11 is needed"
"$docker" version >/dev/null 2>&1 || die "no Docker engine answers: run scripts/engine.sh start"
uv=$(find_uv)
target=(--python-version "$python" --python-platform "$(uv_platform)" --only-binary :all:)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
context=$work/context
mkdir "$context"

choose_base
stage
digest=$(digest)
found=$("$docker" image inspect --format '{{index .Config.Labels "org.fngw.digest"}}' "$image" 2>/dev/null || true)
if [ "$found" = "$digest" ]; then
  say "$image is up to date (${digest:0:12})"
  exit 0
fi
check_base
install_needs
build
