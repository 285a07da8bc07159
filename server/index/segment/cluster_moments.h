// Second moments of a segment: what the terms are learnt from that all clusters of a head share.
#ifndef ATTIC_SERVER_INDEX_SEGMENT_CLUSTER_MOMENTS_H_
#define ATTIC_SERVER_INDEX_SEGMENT_CLUSTER_MOMENTS_H_

#include <vector>

#include "server/index/segment/segment.h"

namespace attic {

// With e_i of row i its key less the mean key of its group (the stored centroid is rounded), v_i
// its value.
struct ClusterMoments {
  std::vector<float> cross;       // (head_dim, value_dim): sum over rows e_i v_i'
  std::vector<float> covariance;  // (head_dim, head_dim): sum over rows e_i e_i'
};

struct SegmentMoments {
  ClusterMoments clusters;
  ClusterMoments super_clusters;
};

// Reads all of the segment, whose vectors are `arrays`; some milliseconds.
SegmentMoments MeasureMoments(const Segment& segment, const VectorArrays& arrays);

// (rows, head_dim): every key less the stored (rounded) centroid of its group in `groups`, the
// clusters or super-clusters of `segment`, whose vectors are `arrays`.
std::vector<float> Residuals(const Segment& segment, const VectorArrays& arrays,
                             const ClusterSums& groups);

}  // namespace attic

#endif  // ATTIC_SERVER_INDEX_SEGMENT_CLUSTER_MOMENTS_H_
