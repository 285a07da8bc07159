#!/usr/bin/env bash
# build_local.sh [FOLDER]: builds the image of deploy/image/Containerfile without a registry and
# without a container engine, runs its programs, and writes FOLDER/attic.tar (FOLDER is build/image
# where none is given), which `docker load`, `podman load` and `kind load image-archive` read. Needs
# root, buildah, debootstrap, and ./run setup.
#
# The base is a debootstrap root in place of the image debian:12-slim; the steps run in a chroot.
# What is kept in FOLDER: base_root (used again), storage (buildah's), attic.tar.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

readonly FOLDER=$(realpath -m "${1:-build/image}")
readonly SUITE=bookworm
readonly BASE=localhost/attic-base:12 IMAGE=localhost/attic:latest
readonly BASE_ROOT=$FOLDER/base_root
VERSION=$(git describe --always --dirty 2>/dev/null || echo unknown)
readonly VERSION

buildah_here() {
  nice buildah --storage-driver vfs --root "$FOLDER/storage" --runroot "$FOLDER/storage_run" "$@"
}

make_base() {
  if [[ ! -e $BASE_ROOT/.complete ]]; then
    rm -rf "$BASE_ROOT"
    debootstrap --variant=minbase --include=ca-certificates "$SUITE" "$BASE_ROOT" \
      >"$FOLDER/debootstrap.log" || { tail "$FOLDER/debootstrap.log" >&2; return 1; }
    touch "$BASE_ROOT/.complete"
  fi
  local container
  container=$(buildah_here from scratch)
  buildah_here add -q "$container" "$BASE_ROOT" / >/dev/null
  buildah_here commit -q --rm "$container" "$BASE" >/dev/null
}

# The compiler cache of this machine serves the build, too, where there is one.
build_image() {
  local volumes=() cache
  if cache=$(ccache --get-config cache_dir 2>/dev/null) && [[ -d $cache ]]; then
    volumes=(--volume "$cache:/ccache")
  fi
  buildah_here bud --isolation chroot --pull-never "${volumes[@]}" --build-arg "BASE=$BASE" \
    --build-arg "JOBS=$(nproc)" --label "org.opencontainers.image.revision=$VERSION" \
    --ignorefile deploy/image/Containerfile.ignore -f deploy/image/Containerfile -t "$IMAGE" .
}

# The image's root, mounted; the container stays for as long as the check runs.
check_image() {
  local container root status=0
  container=$(buildah_here from --pull-never "$IMAGE")
  root=$(buildah_here mount "$container")
  deploy/image/run_check.sh "$root" || status=$?
  buildah_here rm "$container" >/dev/null
  return $status
}

[[ $EUID -eq 0 ]] || { echo "build_local: needs root, for debootstrap and chroot" >&2; exit 1; }
mkdir -p "$FOLDER"
echo "=== base: $SUITE"
make_base
echo "=== image"
build_image
echo "=== check"
check_image
buildah_here rmi --prune >/dev/null
rm -f "$FOLDER/attic.tar"
buildah_here push -q "$IMAGE" "docker-archive:$FOLDER/attic.tar:$IMAGE" >/dev/null
echo "$FOLDER/attic.tar: $(du -h --apparent-size "$FOLDER/attic.tar" | cut -f1)"
