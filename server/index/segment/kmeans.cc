#include "server/index/segment/kmeans.h"

#include <algorithm>
#include <numeric>

#include "attention/vector_kernels.h"
#include "base/check.h"
#include "server/index/segment/kmeans_kernels.h"
#include "server/index/segment/matrix_product.h"

namespace attic {
namespace {

constexpr size_t kBlockPoints = 256;     // a block's scores stay in the second-level cache
constexpr double kMovedShareMin = 1e-3;  // fewer moved points than this end the iterations

class Clustering {
 public:
  Clustering(std::span<const float> points, size_t dim, size_t clusters)
      : points_(points),
        dim_(dim),
        count_(points.size() / dim),
        clusters_(clusters),
        half_norms_(clusters),
        scores_(kBlockPoints * clusters),
        distances_(count_),
        sizes_(clusters) {
    result_.assignment.assign(count_, 0);
    result_.centroids.resize(clusters * dim);
    for (size_t c = 0; c < clusters; ++c) SetCentroid(c, c * count_ / clusters);
  }

  // Moves every point to its nearest centroid: argmin |x - c|^2 = argmax x.c - |c|^2 / 2. Returns
  // how many moved.
  size_t Assign() {
    for (size_t c = 0; c < clusters_; ++c) {
      half_norms_[c] = -0.5f * Dot(centroid(c), centroid(c), dim_);
    }
    size_t moved = 0;
    for (size_t begin = 0; begin < count_; begin += kBlockPoints) {
      const size_t n = std::min(kBlockPoints, count_ - begin);
      MultiplyTransposed(point(begin), result_.centroids.data(), n, clusters_, dim_,
                         scores_.data());
      for (size_t i = 0; i < n; ++i) {
        float best = 0;
        const auto c = static_cast<uint32_t>(
            ArgMaxSum(scores_.data() + i * clusters_, half_norms_.data(), clusters_, best));
        moved += result_.assignment[begin + i] != c;
        result_.assignment[begin + i] = c;
        distances_[begin + i] = 0.5f * Dot(point(begin + i), point(begin + i), dim_) - best;
      }
    }
    return moved;
  }

  // Moves every centroid to the mean of its points. Returns true when an empty one was restarted.
  bool Update() {
    std::fill(sizes_.begin(), sizes_.end(), 0);
    for (uint32_t c : result_.assignment) ++sizes_[c];
    for (size_t c = 0; c < clusters_; ++c) {
      if (sizes_[c] != 0) std::fill_n(centroid(c), dim_, 0.0f);
    }
    for (size_t i = 0; i < count_; ++i) {
      const uint32_t c = result_.assignment[i];
      AddScaled(1.0f / static_cast<float>(sizes_[c]), point(i), dim_, centroid(c));
    }
    return RestartEmpty();
  }

  KMeansResult Take() { return std::move(result_); }

 private:
  const float* point(size_t i) const { return points_.data() + i * dim_; }
  float* centroid(size_t c) { return result_.centroids.data() + c * dim_; }
  void SetCentroid(size_t c, size_t i) { std::copy_n(point(i), dim_, centroid(c)); }

  bool RestartEmpty() {
    const size_t empty = static_cast<size_t>(std::count(sizes_.begin(), sizes_.end(), 0u));
    if (empty == 0) return false;
    std::vector<uint32_t> farthest(count_);
    std::iota(farthest.begin(), farthest.end(), 0);
    const size_t n = std::min(empty, count_);
    std::partial_sort(farthest.begin(), farthest.begin() + n, farthest.end(),
                      [&](uint32_t a, uint32_t b) { return distances_[a] > distances_[b]; });
    size_t next = 0;
    for (size_t c = 0; c < clusters_ && next < n; ++c) {
      if (sizes_[c] == 0) SetCentroid(c, farthest[next++]);
    }
    return distances_[farthest[0]] > 0;
  }

  const std::span<const float> points_;
  const size_t dim_, count_, clusters_;
  std::vector<float> half_norms_, scores_, distances_;
  std::vector<uint32_t> sizes_;
  KMeansResult result_;
};

}  // namespace

KMeansResult KMeans(std::span<const float> points, size_t dim, size_t clusters, int iterations) {
  ATTIC_CHECK(dim > 0 && clusters > 0 && points.size() >= dim && points.size() % dim == 0);
  Clustering clustering(points, dim, clusters);
  const auto moved_min = static_cast<size_t>(kMovedShareMin * (points.size() / dim));
  clustering.Assign();
  for (int i = 0; i < iterations; ++i) {
    const bool restarted = clustering.Update();
    const size_t moved = clustering.Assign();
    if (!restarted && moved <= moved_min) break;
  }
  return clustering.Take();
}

}  // namespace attic
