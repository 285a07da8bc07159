// The terms of a head's estimates, learnt from its segments: the matrices B, and which terms pay.
#ifndef ATTIC_SERVER_INDEX_ESTIMATE_POOLED_TERMS_H_
#define ATTIC_SERVER_INDEX_ESTIMATE_POOLED_TERMS_H_

#include <array>
#include <cstddef>
#include <iterator>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "base/byte_codec.h"
#include "server/index/estimate/estimation.h"
#include "server/index/segment/cluster_moments.h"
#include "server/index/segment/segment.h"

namespace attic {

// Errors of the estimate over one segment against exact attention over it, summed over queries, for
// every combination of terms: index = place in kVarianceShares + as many * first order.
inline constexpr float kVarianceShares[] = {0.0f, 0.5f, 0.7f, 0.85f, 1.0f};
inline constexpr size_t kTermCombinations = 2 * std::size(kVarianceShares);
struct TermErrors {
  std::array<double, kTermCombinations> error = {};
  bool measured = false;
};

// Measures on a few of `training_queries` (n, head_dim), with the segment's own vectors and
// moments. The heaviest clusters count as exact, as they would in a search.
TermErrors MeasureTerms(const Segment& segment, const VectorArrays& arrays,
                        const ClusterMoments& moments, float logit_scale,
                        std::span<const float> training_queries);

// Sums over the segments of a head. Moments are not kept one by one: after a truncation the sums
// stay those of all segments, which look much like the ones kept, until Renewed(). Not thread-safe.
class PooledTerms {
 public:
  PooledTerms(size_t head_dim, size_t value_dim);

  void Add(const Segment& segment, const SegmentMoments& moments, const TermErrors& errors);
  // The segments after the first `kept` are gone.
  void Truncate(size_t kept);
  // True when much of what was added is gone.
  bool stale() const;
  // So many segments are kept, of which nothing is known yet: Renewed() will.
  void Expect(size_t segments) { errors_.resize(segments); }
  // The sums of `segments` alone, of which there are as many as are kept. Reads all their vectors.
  // Errors of VectorSource::ReadAll.
  absl::StatusOr<PooledTerms> Renewed(
      std::span<const std::shared_ptr<const Segment>> segments) const;

  std::shared_ptr<const EstimateTerms> Terms() const;

  void Encode(ByteWriter& writer) const;
  // Replaces everything by what was encoded, as for `segments` segments, some of which may have
  // come or gone since. False when it is not of these dimensions; then nothing changed.
  bool Decode(ByteReader& reader, size_t segments);

 private:
  struct LevelSums {
    std::vector<double> cross;       // (head_dim, value_dim)
    std::vector<double> covariance;  // (head_dim, head_dim)
    double scatter = 0;
    double value_scatter = 0;
    size_t rows = 0;
    void Add(const ClusterSums& sums, const ClusterMoments& moments);
    LevelTerms Terms() const;
    // (head_dim, value_dim): least squares of values on keys, both from the mean of their group.
    std::vector<float> Regression() const;
    void Encode(ByteWriter& writer) const;
    bool Decode(ByteReader& reader);  // false when sizes differ
    // What that leaves of value_scatter.
    double ValueResidual(std::span<const float> regression) const;
  };
  size_t head_dim_, value_dim_;
  LevelSums clusters_;
  LevelSums super_clusters_;
  std::vector<TermErrors> errors_;  // (segments kept)
  size_t segments_added_ = 0;       // that the sums are of
  double value_scatter_ = 0;        // within segments
};

}  // namespace attic

#endif  // ATTIC_SERVER_INDEX_ESTIMATE_POOLED_TERMS_H_
