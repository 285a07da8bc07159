// What all parts of one cluster client share.
#ifndef ATTIC_CLIENT_CPP_CLUSTER_CLUSTER_CORE_H_
#define ATTIC_CLIENT_CPP_CLUSTER_CLUSTER_CORE_H_

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "client/cpp/client.h"
#include "client/cpp/cluster/cluster_directory.h"
#include "client/cpp/cluster/hedge_allowance.h"
#include "client/cpp/cluster/node_pool.h"
#include "client/cpp/cluster/session_cache.h"
#include "client/cpp/cluster/ticker.h"

namespace attic {

struct ClusterCore {
  ClusterCore(const ClientOptions& options, NodeLinkFactory factory, ClusterMap map,
              std::vector<std::string> seeds)
      : options(options),
        pool(std::move(factory)),
        cache(options.limits.cluster_sessions_cached_max),
        directory(pool, std::move(map), std::move(seeds)) {}

  absl::Time CallDeadline() const { return absl::Now() + options.call_timeout; }
  std::shared_ptr<PooledNode> Node(const ClusterMap& map, uint32_t index) {
    return pool.Get(map.nodes[index].address);
  }

  const ClientOptions options;
  NodePool pool;
  SessionCache cache;
  ClusterDirectory directory;
  Ticker ticker;
  HedgeAllowance hedges;
};

}  // namespace attic

#endif  // ATTIC_CLIENT_CPP_CLUSTER_CLUSTER_CORE_H_
