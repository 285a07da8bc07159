// When the centroid graph of a head grows, and when a new version of it is published.
#ifndef ATTIC_SERVER_INDEX_GRAPH_GROWTH_H_
#define ATTIC_SERVER_INDEX_GRAPH_GROWTH_H_

#include <cstddef>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "server/index/graph/query_aware_graph.h"

namespace attic {

// Inserting is cheap and done segment by segment; publishing copies all links and searches for
// every training query, so it waits until enough nodes are missing from the published version.
// Used by one thread at a time.
class GraphGrowth {
 public:
  // Below `nodes_min` centroids there is no graph.
  GraphGrowth(size_t dim, const GraphOptions& options, size_t nodes_min);

  // Inserts the new rows of `centroids` and returns a new version when one is due, else null.
  //   published_nodes: nodes of the version in use, 0 without one
  //   idle: nothing else waits to be built, so a smaller gap is worth closing
  //   training_queries: asked for only when a version is due
  // On error the builder starts afresh next time.
  absl::StatusOr<std::shared_ptr<const QueryAwareGraph>> Grow(
      const VectorsView& centroids, size_t published_nodes, bool idle,
      const std::function<std::vector<float>()>& training_queries);

  // The rows inserted so far are no longer those of the head.
  void Restart() { builder_.reset(); }

  uint64_t memory_bytes() const { return builder_ == nullptr ? 0 : builder_->memory_bytes(); }

 private:
  const size_t dim_;
  const GraphOptions options_;
  const size_t nodes_min_;
  std::unique_ptr<QueryAwareGraphBuilder> builder_;
};

}  // namespace attic

#endif  // ATTIC_SERVER_INDEX_GRAPH_GROWTH_H_
