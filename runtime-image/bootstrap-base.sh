#!/usr/bin/env bash
# Make the image $2 for Python $1 (X.Y) from Debian packages, for machines that no image registry reaches.
#
# Called by build.sh. The root file system is kept as a tar archive in the cache, so that the slow part
# happens once per machine. FNGW_DEBIAN_MIRROR: where debootstrap fetches from (its own default unless set).
set -euo pipefail

python=$1
image=$2
docker=${DOCKER:-docker}
cache=${FNGW_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/fngw}/bootstrap

say() { printf 'images: %s\n' "$*"; }
die() {
  printf 'images: %s\n' "$*" >&2
  exit 1
}

# Debian carries one Python per release.
case $python in
3.11) suite=bookworm ;;
3.13) suite=trixie ;;
*)
  die "no base image for Python $python: none could be pulled, and one made from Debian packages has" \
    "Python 3.11 or 3.13 only. Where a registry answers, or the image is loaded already, run:" \
    "make images PYTHON=$python BASE=python:$python-slim-bookworm"
  ;;
esac

make_archive() {
  local archive=$1 root=$2
  say "bootstrapping Debian $suite with Python $python (about a minute, once)"
  debootstrap --variant=minbase --include=python3,ca-certificates "$suite" "$root" \
    ${FNGW_DEBIAN_MIRROR:+"$FNGW_DEBIAN_MIRROR"} >"$work/debootstrap.log" 2>&1 || {
    tail -n 20 "$work/debootstrap.log" >&2
    die "debootstrap could not fetch Debian $suite: the end of its log is above. Set FNGW_DEBIAN_MIRROR" \
      "to a mirror in reach, or give BASE an image that is already on this engine"
  }
  trim "$root"
  # Sorted and with plain ids: the same packages give the same layer.
  tar --sort=name --numeric-owner -C "$root" -cf "$archive.part" .
  mv "$archive.part" "$archive"
}

# What a replica never reads. The engine mounts its own /dev.
trim() {
  local root=$1
  (
    cd "$root"
    rm -rf var/cache/apt/* var/lib/apt/lists/* var/log/* dev/* tmp/* usr/share/{doc,info,lintian,locale,man}
    mkdir -p usr/share/man/man1 # some packages' scripts fail without it
  )
}

"$docker" version >/dev/null 2>&1 || die "no Docker engine answers: run scripts/engine.sh start"
mkdir -p "$cache"
recipe=$(sha256sum "$0" | cut -c1-12)
archive=$cache/debian-$suite-$(uname -m)-$recipe.tar
if [ ! -s "$archive" ]; then
  command -v debootstrap >/dev/null || die "debootstrap is not installed: run scripts/engine.sh install"
  [ "$(id -u)" -eq 0 ] || die "debootstrap needs root: run it again with sudo, or give BASE an image to use"
  work=$(mktemp -d "$cache/work.XXXXXX")
  trap 'rm -rf --one-file-system "$work"' EXIT # debootstrap mounts /proc and may have died with it
  make_archive "$archive" "$work/root"
fi
"$docker" import \
  --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8' \
  --change 'CMD ["python3"]' \
  --change "LABEL org.fngw.python=$python org.fngw.role=bootstrap" \
  "$archive" "$image" >/dev/null
say "made $image from $archive"
