#include "client/cli/cluster_summary.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "client/cli/text_format.h"

namespace attic::cli {
namespace {

void AddFairShares(const ClusterMap& map, ClusterSummary& summary) {
  const auto takes = [](const ClusterNode& node) {
    return node.state != NodeState::kDown && !node.draining;
  };
  double capacity = 0;
  for (const ClusterNode& node : map.nodes) {
    if (takes(node)) capacity += static_cast<double>(node.capacity);
  }
  for (size_t i = 0; i < map.nodes.size() && capacity > 0; ++i) {
    const ClusterNode& node = map.nodes[i];
    if (takes(node)) summary.nodes[i].fair_share = static_cast<double>(node.capacity) / capacity;
  }
}

std::string Slots(size_t count, const char* are, const char* is) {
  return count == 1 ? absl::StrCat("1 slot ", is)
                    : absl::StrCat(FormatCount(static_cast<int64_t>(count)), " slots ", are);
}

}  // namespace

ClusterSummary SummarizeCluster(const ClusterMap& map) {
  ClusterSummary summary;
  summary.nodes.resize(map.nodes.size());
  size_t replicas = 0;
  for (const SlotAssignment& slot : map.slots) {
    size_t live = 0;
    for (size_t i = 0; i < slot.replicas.size(); ++i) {
      NodeSummary& node = summary.nodes[slot.replicas[i]];
      ++(i == 0 ? node.first : node.other);
      if (map.nodes[slot.replicas[i]].state == NodeState::kLive) ++live;
    }
    for (const uint32_t node : slot.incoming) ++summary.nodes[node].incoming;
    replicas += slot.replicas.size();
    if (live == 0) ++summary.slots_lost;
    if (live < map.replicas_default) ++summary.slots_short;
    if (!slot.incoming.empty()) ++summary.slots_moving;
  }
  for (NodeSummary& node : summary.nodes) {
    if (replicas > 0) {
      node.share = static_cast<double>(node.first + node.other) / static_cast<double>(replicas);
    }
  }
  AddFairShares(map, summary);
  return summary;
}

std::vector<std::string> DescribeHealth(const ClusterMap& map, const ClusterSummary& summary) {
  std::vector<std::string> sentences;
  if (summary.slots_lost > 0) {
    sentences.push_back(absl::StrCat(Slots(summary.slots_lost, "have", "has"),
                                     " no live replica: sessions with a part there cannot be "
                                     "answered until one of the nodes comes back"));
  }
  if (summary.slots_short > summary.slots_lost) {
    sentences.push_back(absl::StrCat(Slots(summary.slots_short - summary.slots_lost, "have", "has"),
                                     " fewer live replicas than the ", map.replicas_default,
                                     " of a session: everything is answered, but one more node "
                                     "that fails may be one too many"));
  }
  if (summary.slots_moving > 0) {
    sentences.push_back(
        absl::StrCat(Slots(summary.slots_moving, "are", "is"), " being copied to other nodes"));
  }
  if (sentences.empty()) {
    sentences.push_back(absl::StrCat("all slots have ", map.replicas_default, " live replicas"));
  }
  return sentences;
}

}  // namespace attic::cli
