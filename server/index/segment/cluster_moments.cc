#include "server/index/segment/cluster_moments.h"

#include <algorithm>

#include "attention/vector_kernels.h"
#include "server/index/segment/matrix_product.h"

namespace attic {
namespace {

// Takes their mean from `count` rows.
void Center(float* rows, size_t count, size_t dim) {
  std::vector<float> mean(dim);
  const float share = 1.0f / static_cast<float>(std::max<size_t>(count, 1));
  for (size_t i = 0; i < count; ++i) AddScaled(share, rows + i * dim, dim, mean.data());
  for (size_t i = 0; i < count; ++i) AddScaled(-1.0f, mean.data(), dim, rows + i * dim);
}

ClusterMoments MomentsOf(const Segment& segment, const VectorArrays& arrays,
                         const ClusterSums& groups, const std::vector<float>& values) {
  const size_t head_dim = segment.head_dim, value_dim = segment.value_dim;
  std::vector<float> residuals = Residuals(segment, arrays, groups);
  for (size_t group = 0; group < groups.count; ++group) {
    Center(residuals.data() + groups.row_begin[group] * head_dim, groups.rows(group), head_dim);
  }
  ClusterMoments moments{.cross = std::vector<float>(head_dim * value_dim),
                         .covariance = std::vector<float>(head_dim * head_dim)};
  MultiplyOuter(residuals.data(), values.data(), head_dim, value_dim, segment.tokens,
                moments.cross.data());
  MultiplyOuter(residuals.data(), residuals.data(), head_dim, head_dim, segment.tokens,
                moments.covariance.data());
  return moments;
}

}  // namespace

std::vector<float> Residuals(const Segment& segment, const VectorArrays& arrays,
                             const ClusterSums& groups) {
  const size_t head_dim = segment.head_dim;
  std::vector<float> residuals(segment.tokens * head_dim), centroids(groups.count * head_dim);
  ToFloat32(arrays.keys.data(), segment.element_type, residuals);
  ToFloat32(groups.centroids.data(), ElementType::kBFloat16, centroids);
  for (size_t group = 0; group < groups.count; ++group) {
    for (size_t row = groups.row_begin[group]; row < groups.row_begin[group + 1]; ++row) {
      AddScaled(-1.0f, centroids.data() + group * head_dim, head_dim,
                residuals.data() + row * head_dim);
    }
  }
  return residuals;
}

SegmentMoments MeasureMoments(const Segment& segment, const VectorArrays& arrays) {
  std::vector<float> values(segment.tokens * segment.value_dim);
  ToFloat32(arrays.values.data(), segment.element_type, values);
  return {.clusters = MomentsOf(segment, arrays, segment.clusters, values),
          .super_clusters = MomentsOf(segment, arrays, segment.super_clusters, values)};
}

}  // namespace attic
