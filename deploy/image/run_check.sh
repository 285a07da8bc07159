#!/usr/bin/env bash
# run_check.sh ROOT: runs the programs of an image's root as Kubernetes would, as user 65532 with
# everything but /data read-only and no capabilities: --help of each, a store and a worker that
# answer health checks, `attic status` against the store. Needs root and ./run setup.
set -euo pipefail

readonly ROOT=$1
readonly PYTHON=${PYTHON:-build/venv/bin/python}
readonly USER_ID=65532

# A mount namespace of its own, so that nothing stays mounted whatever happens.
if [[ ${2:-} != inside ]]; then
  exec unshare --mount --propagation private "$0" "$ROOT" inside
fi

work=$(mktemp -d)
pids=()
clean_up() {
  [[ ${#pids[@]} -eq 0 ]] || kill "${pids[@]}" 2>/dev/null || true
  wait
  umount -R "$work/root" 2>/dev/null || true
  rm -rf "$work"
}
trap clean_up EXIT

mkdir "$work/root" "$work/data"
chown "$USER_ID:$USER_ID" "$work/data"
mount --bind "$ROOT" "$work/root"
mount -o remount,bind,ro "$work/root"
mount --bind "$work/data" "$work/root/data"
mount -t proc proc "$work/root/proc"

in_image=(setpriv --no-new-privs chroot --userspec="$USER_ID:$USER_ID" "$work/root")

# The address in the line that a server prints when it serves.
address_of() {
  local line
  for _ in {1..300}; do
    line=$(grep -m1 -oE 'ready on [^ ]+' "$1" || true)
    [[ -n $line ]] && { echo "${line#ready on }"; return; }
    read -rt 0.1 <> <(:) || true
  done
  echo "run_check: no address in $1" >&2
  cat "$1" "$1.err" >&2
  return 1
}

# check_health ADDRESS [SERVICE]
check_health() {
  "$PYTHON" - "$1" "${2:-}" <<'PYTHON'
import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

stub = health_pb2_grpc.HealthStub(grpc.insecure_channel(sys.argv[1]))
answer = stub.Check(health_pb2.HealthCheckRequest(service=sys.argv[2]), timeout=10)
assert answer.status == health_pb2.HealthCheckResponse.SERVING, answer
print(f"{sys.argv[1]} {sys.argv[2]}: SERVING")
PYTHON
}

for program in attic attic-store attic-worker; do
  # (`head` would end a program that is still writing, with an error.)
  help=$("${in_image[@]}" "/usr/bin/$program" --help)
  echo "${help%%$'\n'*}"
done

flags=(--listen 127.0.0.1:0 --data-dir /data/store --memory-limit 256MiB)
help=$("${in_image[@]}" /usr/bin/attic-store --help)
if [[ $help == *--health-listen* ]]; then
  flags+=(--health-listen unix:/data/health)
fi
"${in_image[@]}" /usr/bin/attic-store "${flags[@]}" >"$work/store" 2>"$work/store.err" &
pids+=($!)
store=$(address_of "$work/store")
check_health "$store"
if [[ $help == *--health-listen* ]]; then
  check_health "unix:$work/data/health"
  check_health "unix:$work/data/health" ready
fi

"${in_image[@]}" /usr/bin/attic-worker --model /usr/share/attic/recall --store "$store" \
  --listen 127.0.0.1:0 >"$work/worker" 2>"$work/worker.err" &
pids+=($!)
worker=$(address_of "$work/worker")
check_health "$worker"

"${in_image[@]}" /usr/bin/attic status --server "$store"
[[ -n $(ls "$work/data") ]] || { echo "run_check: the store wrote nothing to /data" >&2; exit 1; }
# Anyone may write to /tmp but for the mount.
timeout 10 "${in_image[@]}" /usr/bin/attic-store --listen 127.0.0.1:0 --data-dir /tmp/data \
  >"$work/other" 2>&1 || true
if ! grep -q "Read-only file system" "$work/other"; then
  echo "run_check: the root can be written to" >&2
  cat "$work/other" >&2
  exit 1
fi

kill -TERM "${pids[@]}"
for pid in "${pids[@]}"; do wait "$pid"; done
pids=()
echo "the image runs: user $USER_ID, read-only root, no capabilities"
