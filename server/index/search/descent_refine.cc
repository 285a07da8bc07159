#include <algorithm>
#include <array>
#include <cmath>

#include "server/index/search/deadline.h"
#include "server/index/search/descent.h"

namespace attic {
namespace {

constexpr size_t kClustersTogether = 64;

}  // namespace

double Descent::OpeningBytes() const {
  const double clusters = static_cast<double>(part_.clusters_per_segment) /
                          static_cast<double>(part_.super_clusters_per_segment);
  return clusters * static_cast<double>(cluster_bytes());
}

float Descent::ThresholdFor(double squared_error) const {
  constexpr int kBuckets = 96;  // powers of two, from 2^-95 to 1
  std::array<double, kBuckets> sums = {};
  for (const float ratio : s_.super_ratio) {
    if (!(ratio > 0)) continue;
    const int bucket = std::clamp(std::ilogb(ratio) + kBuckets - 1, 0, kBuckets - 1);
    sums[static_cast<size_t>(bucket)] += double{ratio} * OpeningBytes();
  }
  double left = 0;
  for (int b = 0; b < kBuckets; ++b) {
    left += sums[static_cast<size_t>(b)];
    if (left > squared_error) return std::ldexp(1.0f, b - kBuckets + 1);
  }
  return 1.0f;
}

bool Descent::Refine(const DescentThreshold& threshold, absl::Time deadline) {
  for (size_t i = 0; i < super_count_; ++i) {
    if (s_.super_state[i] != SuperState::kWhole || !SuperIsWanted(i, threshold)) continue;
    if (OverBudget(threshold)) return false;
    OpenSuper(i);
  }
  for (size_t i = 0; i < s_.opened.size(); ++i) {
    if (OverBudget(threshold) || DeadlineIsNear(deadline)) return false;
    RefineClusters(s_.opened[i], threshold);
  }
  s_.wanted.clear();
  for (uint32_t i = 0; i < s_.coded.size(); ++i) {
    if (s_.coded[i].exact == s_.coded[i].rows) continue;
    SetRowFloors(s_.coded[i], threshold);
    ListWantedRows(i);
  }
  if (DeadlineIsNear(deadline)) return false;
  return MakeWantedExact(threshold);
}

bool Descent::SuperIsWanted(size_t super_cluster, const DescentThreshold& threshold) const {
  if (s_.super_ratio[super_cluster] > threshold.doubt_per_byte) return true;
  const GroupSums sums = part_.super_sums();
  for (size_t g = 0; g < threshold.logit.size(); ++g) {
    const float sigma = s_.super_norms[g] * sums.deviation[super_cluster];
    const float best = s_.super_logits[g * super_count_ + super_cluster] +
                       sigma * sums.deviation_limit[super_cluster];
    if (best >= threshold.logit[g]) return true;
  }
  return false;
}

void Descent::RefineClusters(const OpenedSuper& open, const DescentThreshold& threshold) {
  const Segment& segment = SegmentOf(open);
  const size_t row_bytes = segment.residuals.row_bytes + 1;
  std::array<float, kClustersTogether> ratio, doubt;
  for (size_t first = 0; first < open.count; first += kClustersTogether) {
    const size_t n = std::min(kClustersTogether, open.count - first);
    const size_t local = open.first_node % part_.clusters_per_segment + first;
    const GroupSums sums = GroupSums::Of(segment.clusters, local, n);
    std::fill_n(ratio.begin(), n, 0.0f);
    for (size_t g = 0; g < group_; ++g) {
      const float* mass = ClusterLogMass(open, g) + first;
      EstimateDoubt(mass, sums, s_.cluster_norms[g], s_.log_total[g], *part_.terms,
                    part_.terms->clusters, doubt.data());
      const float weight = part_.errors.bound(kClusterDoubt) * s_.scale[g];
      for (size_t i = 0; i < n; ++i) ratio[i] = std::max(ratio[i], doubt[i] * weight);
    }
    for (size_t i = 0; i < n; ++i) {
      if (s_.cluster_state[open.offset + first + i] != ClusterState::kEstimated) continue;
      const auto bytes = static_cast<float>(segment.clusters.rows(local + i) * row_bytes);
      bool wanted = ratio[i] > threshold.doubt_per_byte * bytes;
      for (size_t g = 0; g < threshold.logit.size() && !wanted; ++g) {
        const float sigma = s_.cluster_norms[g] * sums.deviation[i];
        wanted = ClusterLogits(open, g)[first + i] + sigma * sums.deviation_limit[i] >=
                 threshold.logit[g];
      }
      if (!wanted) continue;
      if (OverBudget(threshold)) return;
      CodeCluster(open, first + i);
    }
  }
}

// Doubt about a row known by its code is w^2 RowDoubt(): in logits, a floor.
void Descent::SetRowFloors(const CodedCluster& coded, const DescentThreshold& threshold) {
  s_.row_floor.resize(group_);
  const float allowed = threshold.doubt_per_byte * static_cast<float>(key_bytes_);
  for (size_t g = 0; g < group_; ++g) {
    const float variance = s_.residual_queries[g].variance * coded.factor_max * coded.factor_max;
    const float most = part_.errors.bound(kRowDoubt) * s_.scale[g] * RowDoubt(variance);
    float floor = s_.log_total[g] + 0.5f * (std::log(allowed) - std::log(most));
    if (!threshold.row_logit.empty()) {
      const float margin = threshold.row_deviations * std::sqrt(variance);
      floor = std::min(floor, threshold.row_logit[g] - margin);
    }
    s_.row_floor[g] = floor;
  }
}

void Descent::ListWantedRows(uint32_t index) {
  const CodedCluster& coded = s_.coded[index];
  const auto segment = static_cast<uint32_t>(coded.node / part_.clusters_per_segment);
  const size_t cluster = coded.node % part_.clusters_per_segment;
  const uint32_t first = part_.segments[segment]->clusters.row_begin[cluster];
  const uint8_t* exact = s_.row_exact.data() + coded.offset;
  for (uint32_t row = 0; row < coded.rows; ++row) {
    bool wanted = false;
    for (size_t g = 0; g < group_ && !wanted; ++g) {
      wanted = RowLogits(coded, g)[row] >= s_.row_floor[g];
    }
    if (wanted && exact[row] == 0) s_.wanted.push_back({index, row, segment, first + row});
  }
}

}  // namespace attic
