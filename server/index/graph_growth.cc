#include "server/index/graph_growth.h"

#include <new>

namespace attic {
namespace {

// Published when this share of the nodes in use is missing from the version in use.
constexpr double kGapShare = 0.25;
constexpr double kGapShareIdle = 0.05;

}  // namespace

GraphGrowth::GraphGrowth(size_t dim, const GraphOptions& options, size_t nodes_min)
    : dim_(dim), options_(options), nodes_min_(nodes_min) {}

absl::StatusOr<std::shared_ptr<const QueryAwareGraph>> GraphGrowth::Grow(
    const VectorsView& centroids, size_t published_nodes, bool idle,
    const std::function<std::vector<float>()>& training_queries) {
  if (centroids.count < nodes_min_) return nullptr;
  const double gap = static_cast<double>(centroids.count - published_nodes);
  const bool due = gap >= (idle ? kGapShareIdle : kGapShare) * static_cast<double>(published_nodes);
  // A builder that is far behind (of a fork, or after a restart) catches up only when it must.
  const bool far_behind = builder_ == nullptr || builder_->node_count() < published_nodes;
  if (far_behind && published_nodes > 0 && gap < kGapShare * static_cast<double>(published_nodes)) {
    return nullptr;
  }
  if (builder_ == nullptr) builder_ = std::make_unique<QueryAwareGraphBuilder>(dim_, options_);
  if (absl::Status inserted = builder_->Insert(centroids); !inserted.ok()) {
    Restart();
    return inserted;
  }
  if (!due || centroids.count == published_nodes) return nullptr;
  return builder_->Publish(centroids, training_queries());
}

}  // namespace attic
