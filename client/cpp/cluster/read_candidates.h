// Which replica a read goes to.
#ifndef ATTIC_CLIENT_CPP_CLUSTER_READ_CANDIDATES_H_
#define ATTIC_CLIENT_CPP_CLUSTER_READ_CANDIDATES_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>

#include "absl/time/time.h"
#include "client/cpp/cluster/cluster_core.h"

namespace attic {

// Of the nodes of `readers` whose ids are not in `asked`, the one that is likely to answer first:
// what failed lately comes last. `planned` counts, by node, parts that go with the same operation.
// None when all were asked.
inline std::optional<uint32_t> ChooseReader(ClusterCore& core, const ClusterMap& map,
                                            std::span<const uint32_t> readers,
                                            const std::set<std::string>& asked,
                                            const std::map<uint32_t, size_t>& planned,
                                            absl::Time now) {
  std::optional<uint32_t> best;
  bool best_failing = false;
  double best_score = 0;
  for (const uint32_t node : readers) {
    if (asked.contains(map.nodes[node].id)) continue;
    const NodeLoad& load = *core.Node(map, node)->load;
    const auto more = planned.find(node);
    const bool failing = load.Failing(now);
    const double score = load.Score(more == planned.end() ? 0 : more->second, now);
    if (best.has_value() && (failing != best_failing ? failing : score >= best_score)) continue;
    best = node;
    best_failing = failing;
    best_score = score;
  }
  return best;
}

}  // namespace attic

#endif  // ATTIC_CLIENT_CPP_CLUSTER_READ_CANDIDATES_H_
