// The best vectors of many queries by scanning all: ground truth for training queries and
// benchmarks.
#ifndef ATTIC_SERVER_INDEX_GRAPH_EXACT_NEIGHBORS_H_
#define ATTIC_SERVER_INDEX_GRAPH_EXACT_NEIGHBORS_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "attention/element_type.h"

namespace attic {

struct ScoredNode {
  float score;  // inner product
  uint32_t node;
};

// Order of answers: higher score first, lower node first among equals.
inline bool BetterNode(const ScoredNode& a, const ScoredNode& b) {
  return a.score > b.score || (a.score == b.score && a.node < b.node);
}

// The min(k, vectors.count) vectors of largest inner product with each query, best first:
// query_count lists of that length, one after the other. queries is (query_count, vectors.dim).
// A score that is not a number counts as the lowest. vectors.count < 2^32. Thread-safe.
std::vector<ScoredNode> ExactNeighbors(const float* queries, size_t query_count,
                                       const VectorsView& vectors, size_t k);

}  // namespace attic

#endif  // ATTIC_SERVER_INDEX_GRAPH_EXACT_NEIGHBORS_H_
