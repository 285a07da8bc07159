// Best-first search of a flattened graph by inner product.
#ifndef ATTIC_SERVER_INDEX_GRAPH_GRAPH_SEARCH_H_
#define ATTIC_SERVER_INDEX_GRAPH_GRAPH_SEARCH_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "attention/element_type.h"
#include "server/index/graph/exact_neighbors.h"

namespace attic {

// Borrowed adjacency: the neighbours of node i are neighbors[offsets[i]] .. neighbors[offsets[i +
// 1]]; offsets has node_count + 1 elements. Search starts at `entries`. All ids are below
// node_count.
struct GraphView {
  std::span<const uint32_t> offsets;
  std::span<const uint32_t> neighbors;
  std::span<const uint32_t> entries;

  size_t node_count() const { return offsets.empty() ? 0 : offsets.size() - 1; }
};

// Buffers of one searching thread, reused between searches of any graphs. Not thread-safe.
struct GraphSearchScratch {
  std::vector<uint32_t> visited_round;  // per node: the round that visited it last
  uint32_t round = 0;
  std::vector<ScoredNode> frontier;  // heap, best on top: found but not expanded
  std::vector<ScoredNode> best;      // heap, worst on top: the ef best found
  std::vector<float> packed_query;
  std::vector<uint32_t> unvisited;  // neighbours to score
  std::vector<float> scores;
  uint64_t links_read = 0;  // over all searches; for statistics of bytes read
};

// The `ef` best nodes found, best first, into `best` (replaced). Adds the number of vectors scored
// to `visits`. Stops when the best node left to expand is worse than the ef best found (HNSW,
// arXiv 1603.09320, algorithm 2). Allocates only while scratch and best grow.
void SearchGraph(const GraphView& graph, const float* query, const VectorsView& vectors, size_t ef,
                 GraphSearchScratch& scratch, std::vector<ScoredNode>& best, uint64_t& visits);

}  // namespace attic

#endif  // ATTIC_SERVER_INDEX_GRAPH_GRAPH_SEARCH_H_
