#include "server/index/segment/cluster_sums.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "attention/element_type.h"
#include "attention/vector_kernels.h"

namespace attic {
namespace {

// Mean of rows [begin, end) of (n, dim); an empty group gets the row at `begin` or the one before.
void MeanRow(const std::vector<float>& rows, size_t dim, size_t begin, size_t end, float* mean) {
  std::fill_n(mean, dim, 0.0f);
  if (begin == end) {
    const size_t row = std::min(begin, rows.size() / dim - 1);
    std::copy_n(rows.data() + row * dim, dim, mean);
    return;
  }
  const float weight = 1.0f / static_cast<float>(end - begin);
  for (size_t row = begin; row < end; ++row) {
    AddScaled(weight, rows.data() + row * dim, dim, mean);
  }
}

std::vector<std::byte> Narrow(const std::vector<float>& values) {
  std::vector<std::byte> narrow(values.size() * ElementBytes(ElementType::kBFloat16));
  FromFloat32(values, ElementType::kBFloat16, narrow.data());
  return narrow;
}

}  // namespace

ClusterSums MakeClusterSums(std::vector<uint32_t> row_begin, const FloatRows& rows) {
  const size_t head_dim = rows.head_dim;
  ClusterSums sums;
  sums.count = row_begin.size() - 1;
  sums.row_begin = std::move(row_begin);
  std::vector<float> centroids(sums.count * head_dim);
  std::vector<float> mean_values(sums.count * rows.value_dim);
  for (size_t group = 0; group < sums.count; ++group) {
    const size_t begin = sums.row_begin[group], end = sums.row_begin[group + 1];
    const auto n = static_cast<float>(end - begin);
    float* centroid = centroids.data() + group * head_dim;
    MeanRow(rows.keys, head_dim, begin, end, centroid);
    float* mean_value = mean_values.data() + group * rows.value_dim;
    MeanRow(rows.values, rows.value_dim, begin, end, mean_value);
    double squares = 0;
    float farthest = 0;
    for (size_t row = begin; row < end; ++row) {
      const float square = SquaredDistance(rows.keys.data() + row * head_dim, centroid, head_dim);
      squares += square;
      const float* value = rows.values.data() + row * rows.value_dim;
      sums.value_scatter += SquaredDistance(value, mean_value, rows.value_dim);
      farthest = std::max(farthest, square);
    }
    const double variance = begin == end ? 0.0 : squares / (n * static_cast<double>(head_dim));
    sums.scatter += n * variance;
    sums.log_count.push_back(begin == end ? -std::numeric_limits<float>::infinity() : std::log(n));
    sums.deviation.push_back(static_cast<float>(std::sqrt(variance)));
    sums.deviation_limit.push_back(n > 1 ? std::sqrt(2 * std::log(n)) : 0.0f);
    sums.radius.push_back(std::sqrt(farthest));
  }
  sums.centroids = Narrow(centroids);
  sums.mean_values = Narrow(mean_values);
  return sums;
}

}  // namespace attic
