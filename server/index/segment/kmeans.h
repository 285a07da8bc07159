// Lloyd's k-means with distances as blocked matrix products.
#ifndef ATTIC_SERVER_INDEX_SEGMENT_KMEANS_H_
#define ATTIC_SERVER_INDEX_SEGMENT_KMEANS_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace attic {

struct KMeansResult {
  std::vector<uint32_t> assignment;  // (points), each below the cluster count
  std::vector<float> centroids;      // (clusters, dim); of an empty cluster: one of the points
};

// Clusters `points` (n, dim) under squared Euclidean distance, starting from evenly strided points.
// A cluster that runs empty restarts at the point farthest from its centroid, so clusters stay
// empty only when there are fewer distinct points than clusters. Deterministic. n >= 1,
// clusters >= 1. Uses one thread.
KMeansResult KMeans(std::span<const float> points, size_t dim, size_t clusters, int iterations);

}  // namespace attic

#endif  // ATTIC_SERVER_INDEX_SEGMENT_KMEANS_H_
