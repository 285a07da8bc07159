#!/usr/bin/env bash
# assemble_root.sh BIN ROOT: makes the root of the image in the new folder ROOT. It holds attic,
# attic-store and attic-worker from the folder BIN, the libraries they name with their licenses,
# and what a program of glibc expects of a system. Runs on Debian and Ubuntu.
set -euo pipefail

readonly BIN=$1 ROOT=$2
readonly PROGRAMS=(attic attic-store attic-worker)
readonly SOURCE=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
readonly USER_ID=65532
MULTIARCH=$(gcc -print-multiarch)
readonly MULTIARCH

# Paths of the libraries that the programs need, the dynamic loader among them.
libraries() {
  local listing
  listing=$(ldd "${PROGRAMS[@]/#/$BIN/}")
  if grep -q "not found" <<<"$listing"; then
    grep "not found" <<<"$listing" >&2
    return 1
  fi
  grep -oE '/[^ ]+\.so[^ ]*' <<<"$listing" | sort -u
}

# All libraries lie in one folder that the loader searches by itself.
copy_libraries() {
  local library real
  while read -r library; do
    real=$(readlink -f "$library")
    case $library in
      */ld-linux*) install -D -m 755 "$real" "$ROOT/usr${library#/usr}" ;;
      *) install -D -m 644 "$real" "$ROOT/usr/lib/$MULTIARCH/$(basename "$library")" ;;
    esac
    copy_license "$real"
  done
}

# Of the package that a library is from; libraries of the CUDA toolkit come under its license, which
# is named, as not every way to install the toolkit brings the text.
copy_license() {
  local package copyright
  package=$(dpkg-query -S "$1" 2>/dev/null || dpkg-query -S "${1#/usr}" 2>/dev/null || true)
  package=${package%%:*}
  copyright=/usr/share/doc/$package/copyright
  if [[ -n $package && -e $copyright ]]; then
    install -D -m 644 "$copyright" "$ROOT$copyright"
  elif [[ $1 == /usr/local/cuda* ]]; then
    mkdir -p "$ROOT/usr/share/doc/cuda"
    echo "$(basename "$1"): NVIDIA CUDA Toolkit End User License Agreement" \
      >>"$ROOT/usr/share/doc/cuda/copyright"
  else
    echo "assemble_root: no license found for $1" >&2
    return 1
  fi
}

mkdir "$ROOT"
mkdir -p "$ROOT"/{etc/ssl/certs,usr/bin,usr/lib,usr/lib64,usr/share/attic,data,proc,sys,dev}
mkdir -m 1777 "$ROOT/tmp"
ln -s usr/lib "$ROOT/lib"
ln -s usr/lib64 "$ROOT/lib64"

install -m 755 "${PROGRAMS[@]/#/$BIN/}" "$ROOT/usr/bin"
found=$(libraries)
copy_libraries <<<"$found"
install -D -m 644 "$SOURCE/LICENSE" "$ROOT/usr/share/doc/attic/LICENSE"
cp -r "$SOURCE/model/recall" "$ROOT/usr/share/attic/recall"

cp -L /etc/ssl/certs/ca-certificates.crt "$ROOT/etc/ssl/certs/"
cp /etc/debian_version "$ROOT/etc/"
echo "hosts: files dns" >"$ROOT/etc/nsswitch.conf"
echo "attic:x:$USER_ID:$USER_ID:attic:/data:/sbin/nologin" >"$ROOT/etc/passwd"
echo "attic:x:$USER_ID:" >"$ROOT/etc/group"
chown "$USER_ID:$USER_ID" "$ROOT/data"
