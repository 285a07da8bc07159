// Builds the sums over groups of rows from which attention is estimated.
#ifndef ATTIC_SERVER_INDEX_SEGMENT_CLUSTER_SUMS_H_
#define ATTIC_SERVER_INDEX_SEGMENT_CLUSTER_SUMS_H_

#include <cstdint>
#include <span>
#include <vector>

#include "server/index/segment/segment.h"

namespace attic {

// Rows in float32, in the order of the segment.
struct FloatRows {
  std::vector<float> keys;    // (rows, head_dim)
  std::vector<float> values;  // (rows, value_dim)
  size_t head_dim = 0;
  size_t value_dim = 0;
};

// Sums over the groups of rows that start at row_begin; the last element is the number of rows.
ClusterSums MakeClusterSums(std::vector<uint32_t> row_begin, const FloatRows& rows);

}  // namespace attic

#endif  // ATTIC_SERVER_INDEX_SEGMENT_CLUSTER_SUMS_H_
