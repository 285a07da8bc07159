#include "server/index/segment/segment_builder.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

#include "attention/vector_kernels.h"
#include "base/check.h"
#include "server/index/segment/cluster_moments.h"
#include "server/index/segment/cluster_sums.h"
#include "server/index/segment/kmeans.h"

namespace attic {
namespace {

// Stable order of items by their group, and where each group starts in it.
struct Grouping {
  std::vector<uint32_t> order;  // (items)
  std::vector<uint32_t> begin;  // (groups + 1)
};

Grouping GroupItems(std::span<const uint32_t> group_of, size_t groups) {
  Grouping grouping;
  grouping.begin.assign(groups + 1, 0);
  for (uint32_t group : group_of) ++grouping.begin[group + 1];
  std::partial_sum(grouping.begin.begin(), grouping.begin.end(), grouping.begin.begin());
  std::vector<uint32_t> next(grouping.begin.begin(), grouping.begin.end() - 1);
  grouping.order.resize(group_of.size());
  for (uint32_t item = 0; item < group_of.size(); ++item) {
    grouping.order[next[group_of[item]]++] = item;
  }
  return grouping;
}

// Clusters in super-cluster order and rows in cluster order.
struct Layout {
  std::vector<uint32_t> row_token;            // (tokens)
  std::vector<uint32_t> cluster_row_begin;    // (clusters + 1)
  std::vector<uint32_t> super_row_begin;      // (super-clusters + 1)
  std::vector<uint32_t> super_cluster_begin;  // (super-clusters + 1)
};

Layout MakeLayout(std::span<const float> keys, size_t head_dim, const SegmentOptions& options) {
  KMeansResult fine = KMeans(keys, head_dim, options.clusters, options.kmeans_iterations);
  const KMeansResult coarse =
      KMeans(fine.centroids, head_dim, options.super_clusters, options.kmeans_iterations);
  Grouping supers = GroupItems(coarse.assignment, options.super_clusters);
  std::vector<uint32_t> renumbered(options.clusters);
  for (uint32_t i = 0; i < options.clusters; ++i) renumbered[supers.order[i]] = i;
  for (uint32_t& cluster : fine.assignment) cluster = renumbered[cluster];
  Grouping clusters = GroupItems(fine.assignment, options.clusters);
  Layout layout;
  layout.row_token = std::move(clusters.order);
  for (uint32_t cluster : supers.begin) layout.super_row_begin.push_back(clusters.begin[cluster]);
  layout.cluster_row_begin = std::move(clusters.begin);
  layout.super_cluster_begin = std::move(supers.begin);
  return layout;
}

std::vector<float> Widen(const VectorsView& vectors) {
  std::vector<float> out(vectors.count * vectors.dim);
  ToFloat32(vectors.data, vectors.type, out);
  return out;
}

std::vector<std::byte> GatherRows(const VectorsView& vectors, std::span<const uint32_t> tokens) {
  const size_t row_bytes = vectors.row_bytes();
  std::vector<std::byte> rows(tokens.size() * row_bytes);
  for (size_t row = 0; row < tokens.size(); ++row) {
    std::memcpy(rows.data() + row * row_bytes, vectors.row(tokens[row]), row_bytes);
  }
  return rows;
}

// Sum over rows of the squared distance to their mean.
double Scatter(const std::vector<float>& rows, size_t dim) {
  const size_t count = rows.size() / dim;
  std::vector<float> mean(dim);
  for (size_t i = 0; i < count; ++i) {
    AddScaled(1.0f / static_cast<float>(count), rows.data() + i * dim, dim, mean.data());
  }
  double sum = 0;
  for (size_t i = 0; i < count; ++i)
    sum += SquaredDistance(rows.data() + i * dim, mean.data(), dim);
  return sum;
}

}  // namespace

std::shared_ptr<const Segment> BuildSegment(const VectorsView& keys, const VectorsView& values,
                                            int64_t begin_position, const SegmentOptions& options,
                                            const SignRotation& rotation,
                                            std::shared_ptr<MemoryBudget> budget) {
  ATTIC_CHECK(keys.count > 0 && keys.count <= Segment::kTokensMax && keys.count == values.count);
  auto segment = std::make_shared<Segment>();
  segment->element_type = keys.type;
  segment->head_dim = keys.dim;
  segment->value_dim = values.dim;
  segment->begin_position = begin_position;
  segment->tokens = keys.count;
  Layout layout = MakeLayout(Widen(keys), keys.dim, options);
  VectorArrays arrays{GatherRows(keys, layout.row_token), GatherRows(values, layout.row_token)};
  segment->row_position.assign(layout.row_token.begin(), layout.row_token.end());
  FloatRows rows{Widen(segment->key_rows(arrays)), Widen(segment->value_rows(arrays)), keys.dim,
                 values.dim};
  segment->clusters = MakeClusterSums(std::move(layout.cluster_row_begin), rows);
  segment->super_clusters = MakeClusterSums(std::move(layout.super_row_begin), rows);
  segment->super_cluster_begin = std::move(layout.super_cluster_begin);
  segment->value_scatter = Scatter(rows.values, rows.value_dim);
  segment->codes = MakeSignCodes(rotation, Residuals(*segment, arrays, segment->super_clusters),
                                 segment->super_clusters.row_begin);
  segment->residuals = MakeResidualCodes(rotation, Residuals(*segment, arrays, segment->clusters),
                                         segment->clusters.row_begin);
  segment->vectors = std::make_shared<SegmentVectors>(std::move(arrays), segment->clusters.count,
                                                      std::move(budget));
  return segment;
}

}  // namespace attic
