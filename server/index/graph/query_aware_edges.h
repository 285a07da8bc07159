// What training queries teach a graph: side edges between the vectors that are best together, and
// the entries to start from.
#ifndef ATTIC_SERVER_INDEX_GRAPH_QUERY_AWARE_EDGES_H_
#define ATTIC_SERVER_INDEX_GRAPH_QUERY_AWARE_EDGES_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "attention/element_type.h"
#include "server/index/graph/exact_neighbors.h"

namespace attic {

// Side edges in one array: those of node i are nodes[offsets[i]] .. nodes[offsets[i + 1]], the
// one proposed by the most training queries first. offsets has (vectors) + 1 elements, or none
// when there are no side edges.
struct SideEdges {
  std::vector<uint32_t> offsets;
  std::vector<uint32_t> nodes;

  std::span<const uint32_t> of(size_t node) const {
    if (offsets.empty()) return {};
    return {nodes.data() + offsets[node], offsets[node + 1] - offsets[node]};
  }
};

// For every training query, the minimum spanning tree by Euclidean distance (Prim) over its list of
// best vectors; the edges of all trees, in both directions, at most edges_max per node.
//   best: list_length nodes per training query, as from ExactNeighbors
// Over edges_max a node keeps the edges that most training queries proposed (the shortest among
// equals): such an edge is on the way of that many queries, while a short one tends to repeat what
// the base graph has.
SideEdges BuildSideEdges(const VectorsView& vectors, std::span<const ScoredNode> best,
                         size_t list_length, size_t edges_max);

// At most `count` nodes, those that are first in the lists of most training queries, and of equals
// those among the first few of most.
std::vector<uint32_t> HotNodes(std::span<const ScoredNode> best, size_t list_length, size_t count);

// The minimum spanning tree over points given by their squared distances (count, count): pairs
// (parent, child) of point numbers in the order they join. count - 1 pairs.
std::vector<std::pair<uint32_t, uint32_t>> MinimumSpanningTree(
    std::span<const float> squared_distances, size_t count);

}  // namespace attic

#endif  // ATTIC_SERVER_INDEX_GRAPH_QUERY_AWARE_EDGES_H_
