// Query-aware HNSW over a set of vectors, searched by inner product.
//
// Attention queries lie outside the distribution of keys, and graphs built from keys alone lose
// them (RetrievalAttention, arXiv 2409.10516; RoarGraph, VLDB 2024; NGFix, arXiv 2510.22316). Here
// hnswlib builds the base graph under L2 over vectors augmented by sqrt(R^2 - |x|^2), which turns
// inner product into distance; our own level-0 search reads its links plus a side array of
// query-aware edges (each training query's best vectors joined by a minimum spanning tree) and
// starts at hot entries (the vectors most often best for training queries).
#ifndef ATTIC_SERVER_INDEX_QUERY_AWARE_GRAPH_H_
#define ATTIC_SERVER_INDEX_QUERY_AWARE_GRAPH_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "attention/element_type.h"

namespace attic {

struct GraphOptions {
  size_t links_per_node = 16;       // hnswlib's M; level 0 has twice as many
  size_t construction_width = 100;  // hnswlib's ef_construction
  size_t hot_entries = 16;
  size_t training_neighbors = 100;  // best vectors of a training query that are joined
  size_t side_edges_max = 32;       // per node
  size_t training_queries_max = 4096;
  uint64_t seed = 1;
};

struct ScoredNode {
  float score;  // inner product
  uint32_t node;
};

// Buffers of one searching thread, reused between searches. Not thread-safe.
struct GraphSearchScratch {
  std::vector<uint32_t> visited_round;  // per node
  uint32_t round = 0;
  std::vector<ScoredNode> frontier;
  std::vector<ScoredNode> best;
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

  // Inserts rows [node_count(), vectors.count) of `vectors`. RESOURCE_EXHAUSTED when memory is
  // short; then nothing more can be inserted but graphs published earlier stay good.
  absl::Status Insert(const VectorsView& vectors);

  // The graph over the rows inserted so far. `training_queries` is (n, dim) float32, of which at
  // most options.training_queries_max evenly strided ones are used; n == 0 gives a graph without
  // side edges. `vectors` are the rows inserted.
  absl::StatusOr<std::shared_ptr<const QueryAwareGraph>> Publish(
      const VectorsView& vectors, std::span<const float> training_queries) const;

  size_t node_count() const;
  uint64_t memory_bytes() const;

  // hnswlib's own search with its own entry point, for comparison in benchmarks: the `k` best nodes
  // by inner product among those hnswlib returns at width `ef`.
  std::vector<ScoredNode> SearchPlainHnsw(const float* query, size_t k, size_t ef) const;

 private:
  struct Hnsw;
  const size_t dim_;
  const GraphOptions options_;
  std::unique_ptr<Hnsw> hnsw_;
};

}  // namespace attic

#endif  // ATTIC_SERVER_INDEX_QUERY_AWARE_GRAPH_H_
