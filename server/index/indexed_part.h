// The part of a head that segments hold, as searches see it.
#ifndef ATTIC_SERVER_INDEX_INDEXED_PART_H_
#define ATTIC_SERVER_INDEX_INDEXED_PART_H_

#include <cstddef>
#include <memory>
#include <vector>

#include "server/index/estimate/calibration.h"
#include "server/index/estimate/estimation.h"
#include "server/index/graph/query_aware_graph.h"
#include "server/index/growing_array.h"
#include "server/index/head_index.h"
#include "server/index/segment/segment.h"

namespace attic {

// A row by the node of its cluster and its place within the cluster.
struct ClusterRow {
  uint32_t node;
  uint32_t offset;
};

// Sums of all segments side by side, so that one scan reads them all. All segments of a head have
// the same number of clusters and super-clusters: cluster c of segment s is node
// s * clusters_per_segment + c.
template <template <typename> class Array>
struct SummaryArrays {
  Array<std::byte> centroids;          // (nodes, head_dim) bfloat16; empty without a graph
  Array<std::byte> super_centroids;    // (super-clusters, head_dim) bfloat16
  Array<std::byte> super_mean_values;  // (super-clusters, value_dim) bfloat16
  Array<float> super_log_count;        // (super-clusters), and so on as in ClusterSums
  Array<float> super_deviation;
  Array<float> super_deviation_limit;
  // Codes: blocks are numbered through all segments.
  Array<float> super_radius;    // (super-clusters): largest |r| of its codes
  Array<uint32_t> super_block;  // (super-clusters): its first block
  Array<float> block_radius;    // (blocks), as in SignCodes
  Array<float> block_factor;    // (blocks)
};
template <typename T>
using GrowingArrayView = typename GrowingArray<T>::View;
using SummaryViews = SummaryArrays<GrowingArrayView>;

// The growing form, owned by a head.
class SummaryTables {
 public:
  // With `centroids`, for a graph, those of clusters too.
  void Append(const Segment& segment, bool centroids);
  // Keeps the first `segments` segments of `segments_held`.
  void Truncate(size_t segments, size_t segments_held);
  SummaryTables Prefix(size_t segments, size_t segments_held) const;
  SummaryViews Views() const;
  uint64_t memory_bytes() const;

 private:
  // Blocks of codes of the first `segments` segments of `segments_held`.
  size_t BlocksOf(size_t segments, size_t segments_held) const;

  SummaryArrays<GrowingArray> arrays_;
};

// Immutable once published.
struct IndexedPart {
  HeadShape shape;
  IndexOptions options;
  size_t clusters_per_segment = 0;
  size_t super_clusters_per_segment = 0;
  std::vector<std::shared_ptr<const Segment>> segments;  // of consecutive positions from 0
  SummaryViews tables;
  std::shared_ptr<const EstimateTerms> terms;
  Calibration calibration;
  std::shared_ptr<const QueryAwareGraph> graph;  // may be null, or lag behind the newest segments
  std::shared_ptr<const SignRotation> rotation;

  size_t node_count() const { return segments.size() * clusters_per_segment; }
  size_t super_cluster_count() const { return segments.size() * super_clusters_per_segment; }
  int64_t token_count() const { return segments.empty() ? 0 : segments.back()->end_position(); }

  VectorsView centroids() const {
    return {tables.centroids.data(), ElementType::kBFloat16, node_count(), shape.head_dim};
  }
  VectorsView super_centroids() const {
    return {tables.super_centroids.data(), ElementType::kBFloat16, super_cluster_count(),
            shape.head_dim};
  }
  VectorsView super_mean_values() const {
    return {tables.super_mean_values.data(), ElementType::kBFloat16, super_cluster_count(),
            shape.value_dim};
  }
  GroupSums super_sums() const {
    return {tables.super_log_count.data(), tables.super_deviation.data(),
            tables.super_deviation_limit.data(), super_cluster_count()};
  }
  // Every vector is in memory.
  bool AllResident() const;
  // A scan of everything is faster than what the index does for such a request, or keeps a promise
  // that the index was not seen to keep.
  bool ScanIsBetter(const SelectionPolicy& selection) const;
  // The blocks of codes of super-cluster `super`: [first, last).
  uint32_t first_block(size_t super) const { return tables.super_block.data()[super]; }
  uint32_t last_block(size_t super) const {
    return super + 1 < super_cluster_count() ? first_block(super + 1)
                                             : static_cast<uint32_t>(tables.block_radius.size());
  }
  // The row that holds `position`, below token_count().
  ClusterRow RowOf(int64_t position) const;
  const Segment& segment_of_node(size_t node) const {
    return *segments[node / clusters_per_segment];
  }
};

}  // namespace attic

#endif  // ATTIC_SERVER_INDEX_INDEXED_PART_H_
