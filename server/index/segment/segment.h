// A segment: an immutable run of positions of one head, with its vectors and its index together.
//
// Plain arrays without pointers between them, so that a segment can be written to disk section by
// section and read back; the vectors may be on disk only (segment_vectors.h). Rows (one key and
// value each) are stored in cluster order, clusters in super-cluster order, rows of a cluster by
// ascending position.
#ifndef ATTIC_SERVER_INDEX_SEGMENT_SEGMENT_H_
#define ATTIC_SERVER_INDEX_SEGMENT_SEGMENT_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "api/types.h"
#include "attention/element_type.h"
#include "server/index/codes/residual_codes.h"
#include "server/index/codes/sign_codes.h"
#include "server/index/segment/segment_vectors.h"

namespace attic {

// Sums over groups of rows: the clusters of a segment, or its super-clusters. With n rows
// k_i = c + e_i of a group, values v_i:
struct ClusterSums {
  size_t count = 0;
  std::vector<uint32_t> row_begin;     // (count + 1), first row of each group
  std::vector<std::byte> centroids;    // (count, head_dim) bfloat16: c, of an empty group any key
  std::vector<std::byte> mean_values;  // (count, value_dim) bfloat16: sum v_i / n
  std::vector<float> log_count;        // (count): log n, -infinity when empty
  std::vector<float> deviation;  // (count): sqrt of the mean of e_i^2 over rows and dimensions
  std::vector<float> deviation_limit;  // (count): sqrt(2 log n), see estimation.h
  std::vector<float> radius;           // (count): largest |e_i|
  double scatter = 0;                  // sum over groups of n * deviation^2
  double value_scatter = 0;            // sum over rows of |v_i - mean value|^2

  size_t rows(size_t group) const { return row_begin[group + 1] - row_begin[group]; }
  uint64_t memory_bytes() const;
};

struct Segment {
  static constexpr uint32_t kVersion = 1;
  // row_position is 16 bits wide.
  static constexpr int64_t kTokensMax = 65534;

  uint32_t version = kVersion;
  ElementType element_type = ElementType::kBFloat16;
  size_t head_dim = 0;
  size_t value_dim = 0;
  int64_t begin_position = 0;
  size_t tokens = 0;

  // Keys and values, rows in cluster order. Never null in a segment that is published.
  std::shared_ptr<SegmentVectors> vectors;
  std::vector<uint16_t> row_position;  // (tokens): position of each row, from begin_position

  ClusterSums clusters;
  ClusterSums super_clusters;
  std::vector<uint32_t> super_cluster_begin;  // (super_clusters.count + 1): first cluster of each

  double value_scatter = 0;  // sum over rows of |v_i - mean over the segment|^2

  SignCodes codes;          // of every row; a group is a super-cluster, its centroid the reference
  ResidualCodes residuals;  // of every row; a group is a cluster, its centroid the reference

  int64_t end_position() const { return begin_position + static_cast<int64_t>(tokens); }
  PositionRange range() const { return {begin_position, end_position()}; }
  // Of arrays that are those of this segment.
  VectorsView key_rows(const VectorArrays& arrays) const {
    return {arrays.keys.data(), element_type, tokens, head_dim};
  }
  VectorsView value_rows(const VectorArrays& arrays) const {
    return {arrays.values.data(), element_type, tokens, value_dim};
  }
  int64_t position(size_t row) const { return begin_position + row_position[row]; }
  size_t cluster_of_row(size_t row) const;

  // The row that holds `position`, which must be in range(); looks at all of them.
  size_t FindRow(int64_t position) const;
  // The row of every position.
  std::vector<uint32_t> RowsByPosition() const;

  // The rows of `cluster` whose positions are in `range`: [begin, end), contiguous.
  struct Rows {
    uint32_t begin, end;
  };
  Rows RowsInRange(size_t cluster, PositionRange range) const;

  // The codes of the rows of `cluster`.
  CodedRows coded_rows(size_t cluster) const {
    return residuals.rows(cluster, clusters.row_begin[cluster], clusters.rows(cluster));
  }

  uint64_t summaries_bytes() const;
  uint64_t codes_bytes() const { return codes.memory_bytes() + residuals.memory_bytes(); }
};

}  // namespace attic

#endif  // ATTIC_SERVER_INDEX_SEGMENT_SEGMENT_H_
