// The base graph: hnswlib's HNSW (arXiv 1603.09320) under squared Euclidean distance over rows
// augmented by sqrt(R^2 - |x|^2), so that the row nearest to an augmented query (q, 0) is the one
// of largest inner product with q (Bachrach et al., RecSys 2014).
//
// R is fixed by the first insert, with headroom; rows of larger norm get 0. Only this folder's
// hnsw_builder.cc includes hnswlib, and no exception of it leaves.
#ifndef ATTIC_SERVER_INDEX_GRAPH_HNSW_BUILDER_H_
#define ATTIC_SERVER_INDEX_GRAPH_HNSW_BUILDER_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "attention/element_type.h"
#include "server/index/graph/exact_neighbors.h"

namespace attic {

struct HnswOptions {
  size_t links_per_node = 16;
  size_t construction_width = 100;
  size_t nodes_max = 0;
  uint64_t seed = 1;
  // hnswlib keeps float32 copies of the rows; else it reads those passed to Insert, and Search is
  // not to be called.
  bool copy_rows = true;
};

// One thread at a time. Node ids are row numbers.
class HnswBuilder {
 public:
  HnswBuilder(size_t dim, const HnswOptions& options);
  ~HnswBuilder();
  HnswBuilder(const HnswBuilder&) = delete;
  HnswBuilder& operator=(const HnswBuilder&) = delete;

  // Inserts rows [node_count(), rows.count); without copies, earlier rows must be there unchanged.
  // rows.dim == dim. RESOURCE_EXHAUSTED over nodes_max
  // (nothing is inserted) or when memory is short (rows before the failing one are; every later
  // Insert fails). Calls progress(node_count()), unless empty, now and then.
  absl::Status Insert(const VectorsView& rows, const std::function<void(size_t)>& progress);

  size_t node_count() const { return node_count_; }

  // Level-0 neighbours of `node`, valid until the next Insert. Ids at or above node_count() are
  // possible after a failed Insert and must be skipped.
  std::span<const uint32_t> Links(uint32_t node) const;

  // At most `count` nodes of the highest levels, hnswlib's entry point first: a random sample of
  // the nodes to start a search from.
  std::vector<uint32_t> HighestNodes(size_t count) const;

  // hnswlib's own search at width max(ef, k): the k best by inner product, best first. Adds the
  // number of rows compared to `visits`.
  std::vector<ScoredNode> Search(const float* query, size_t k, size_t ef, uint64_t& visits) const;

  uint64_t memory_bytes() const;

 private:
  struct Index;
  absl::Status Reserve(const VectorsView& rows);

  const size_t dim_;
  const HnswOptions options_;
  double radius_squared_ = 0.0;
  size_t node_count_ = 0;
  bool broken_ = false;           // hnswlib threw half-way; what it holds may not be extended
  std::unique_ptr<Index> index_;  // null until the first insert
};

}  // namespace attic

#endif  // ATTIC_SERVER_INDEX_GRAPH_HNSW_BUILDER_H_
