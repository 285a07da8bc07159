// What a store is started with.
#ifndef ATTIC_SERVER_SESSION_SESSION_STORE_OPTIONS_H_
#define ATTIC_SERVER_SESSION_SESSION_STORE_OPTIONS_H_

#include <cstddef>
#include <functional>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "api/limits.h"
#include "server/index/head_index.h"
#include "server/session/store_disk.h"

namespace attic {

struct SessionStoreOptions {
  Limits limits;
  IndexOptions index;
  size_t threads = 0;        // for queries; 0: one per hardware thread
  size_t build_threads = 0;  // background builders; 0: half the hardware threads, at least one
  // Durable sessions, and memory beyond that of the machine, need a directory:
  // disk.store.directory, empty for none.
  StoreDiskOptions disk;
  // For leases; called by any thread.
  std::function<absl::Time()> clock = [] { return absl::Now(); };
  absl::Duration sweep_interval = absl::Seconds(1);  // between looks for leases that have ended
  // Holds shards and manifests, and nothing else; or neither (server/session/placement_rules.h).
  bool node_of_cluster = false;
};

}  // namespace attic

#endif  // ATTIC_SERVER_SESSION_SESSION_STORE_OPTIONS_H_
