// Query-aware HNSW over a set of vectors, searched by inner product.
//
// Attention queries lie outside the distribution of keys, and graphs built from keys alone lose
// them (RetrievalAttention, arXiv 2409.10516; RoarGraph, VLDB 2024; NGFix, arXiv 2510.22316). Here
// hnswlib builds the base graph under L2 over vectors augmented by sqrt(R^2 - |x|^2), which turns
// inner product into distance; our own level-0 search reads its links plus a side array of
// query-aware edges (each training query's best vectors joined by a minimum spanning tree) and
// starts at hot entries (the vectors most often best for training queries).
#ifndef ATTIC_SERVER_INDEX_GRAPH_QUERY_AWARE_GRAPH_H_
#define ATTIC_SERVER_INDEX_GRAPH_QUERY_AWARE_GRAPH_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "attention/element_type.h"
#include "server/index/graph/exact_neighbors.h"
#include "server/index/graph/graph_search.h"
#include "server/index/graph/hnsw_builder.h"

namespace attic {

struct GraphOptions {
  size_t links_per_node = 16;       // hnswlib's M; level 0 has twice as many
  size_t construction_width = 100;  // hnswlib's ef_construction
  size_t hot_entries = 16;
  size_t training_neighbors = 100;  // best vectors of a training query that are joined
  size_t side_edges_max = 32;       // per node
  size_t training_queries_max = 4096;
  size_t nodes_max = size_t{1} << 24;
  uint64_t seed = 1;
  bool copy_rows = false;  // the builder keeps float32 copies; only SearchPlainHnsw needs them
};

// An immutable, published version: searches read it from any number of threads.
class QueryAwareGraph {
 public:
  // The `ef` best nodes found for `query` (dim float32), best first, into `best` (replaced). visits
  // counts vectors scored. `vectors` must be the rows the graph was built from (rows beyond
  // node_count() are ignored). ef >= 1.
  void Search(const float* query, const VectorsView& vectors, size_t ef,
              GraphSearchScratch& scratch, std::vector<ScoredNode>& best, uint64_t& visits) const;

  size_t node_count() const { return node_count_; }
  uint64_t memory_bytes() const;

 private:
  friend class QueryAwareGraphBuilder;
  size_t node_count_ = 0;
  // Level-0 links of hnswlib and side edges, flattened: node i's neighbours are
  // neighbors_[offsets_[i]] .. neighbors_[offsets_[i + 1]].
  std::vector<uint32_t> offsets_;
  std::vector<uint32_t> neighbors_;
  std::vector<uint32_t> entries_;
};

// Grows a graph. One thread at a time; published graphs are independent of later growth.
class QueryAwareGraphBuilder {
 public:
  QueryAwareGraphBuilder(size_t dim, const GraphOptions& options);
  ~QueryAwareGraphBuilder();
  QueryAwareGraphBuilder(const QueryAwareGraphBuilder&) = delete;
  QueryAwareGraphBuilder& operator=(const QueryAwareGraphBuilder&) = delete;

  // Inserts rows [node_count(), vectors.count) of `vectors`; earlier rows must not have changed.
  // RESOURCE_EXHAUSTED over options.nodes_max (then nothing was inserted) or when memory is short
  // (then nothing more can be inserted, but graphs published earlier stay good). INVALID_ARGUMENT
  // when vectors.dim is not the dimension of the graph.
  // progress(node_count()), unless empty, is called now and then.
  absl::Status Insert(const VectorsView& vectors,
                      const std::function<void(size_t)>& progress = nullptr);

  // The graph over the rows inserted so far. `training_queries` is (n, dim) float32, of which at
  // most options.training_queries_max evenly strided ones are used; n == 0 gives a graph without
  // side edges. `vectors` are the rows inserted (rows beyond node_count() are ignored). Scores
  // every row for every training query used: at 65,536 rows of 64 dimensions and 2,000 queries
  // about a second of one core. INVALID_ARGUMENT when shapes do not match.
  absl::StatusOr<std::shared_ptr<const QueryAwareGraph>> Publish(
      const VectorsView& vectors, std::span<const float> training_queries) const;

  size_t node_count() const;
  uint64_t memory_bytes() const;

  // Only with options.copy_rows. hnswlib's own search with its own entry point, for comparison in
  // benchmarks: the `k` best nodes by inner product among those hnswlib returns at width `ef`. Adds
  // the number of vectors compared to `visits` unless it is null. Not to be called at the same time
  // as itself or Insert.
  std::vector<ScoredNode> SearchPlainHnsw(const float* query, size_t k, size_t ef,
                                          uint64_t* visits = nullptr) const;

 private:
  const size_t dim_;
  const GraphOptions options_;
  HnswBuilder hnsw_;
};

}  // namespace attic

#endif  // ATTIC_SERVER_INDEX_GRAPH_QUERY_AWARE_GRAPH_H_
