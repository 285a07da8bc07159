#include <algorithm>
#include <array>
#include <cmath>

#include "base/prefetch.h"
#include "server/index/search/deadline.h"
#include "server/index/search/descent.h"
#include "server/index/search/row_kernels.h"

namespace attic {
namespace {

constexpr size_t kClustersAhead = 3;  // whose codes are on their way into the cache
constexpr size_t kClustersPerDeadlineCheck = 16;

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
  s_.cluster_factor.resize(group_);
  for (size_t g = 0; g < group_; ++g) s_.cluster_factor[g] = DoubtFactor(g, kClusterDoubt);
  s_.to_code.clear();
  for (uint32_t i = 0; i < s_.opened.size(); ++i) ListWantedClusters(i, threshold);
  for (size_t i = 0; i < s_.to_code.size(); ++i) {
    if (i + kClustersAhead < s_.to_code.size()) PrefetchCodes(s_.to_code[i + kClustersAhead]);
    if (OverBudget(threshold)) return false;
    if (i % kClustersPerDeadlineCheck == 0 && DeadlineIsNear(deadline)) return false;
    CodeCluster(s_.to_code[i].opened, s_.to_code[i].cluster);
  }
  if (DeadlineIsNear(deadline)) return false;  // rows that are listed are scored
  s_.wanted.clear();
  SetRowFloors(threshold);
  for (uint32_t i = 0; i < s_.coded.size(); ++i) {
    if (s_.coded[i].exact == s_.coded[i].rows) continue;
    ListWantedRows(i, threshold);
  }
  return MakeWantedExact(threshold);
}

bool Descent::SuperIsWanted(size_t super_cluster, const DescentThreshold& threshold) const {
  if (s_.super_ratio[super_cluster] > threshold.doubt_per_byte) return true;
  const GroupSums sums = part_.super_sums();
  for (size_t g = 0; g < threshold.logit.size(); ++g) {
    const float sigma = s_.super_norms[g] * sums.deviation[super_cluster];
    const float best = s_.super_logits[g * super_count_ + super_cluster] +
                       threshold.reach * sigma * sums.deviation_limit[super_cluster];
    if (best >= threshold.logit[g]) return true;
  }
  return false;
}

void Descent::ListWantedClusters(uint32_t opened, const DescentThreshold& threshold) {
  const OpenedSuper& open = s_.opened[opened];
  const Segment& segment = SegmentOf(open);
  const size_t row_bytes = segment.residuals.row_bytes + 1;
  const size_t local = open.first_node % part_.clusters_per_segment;
  const GroupSums sums = GroupSums::Of(segment.clusters, local, open.count);
  for (size_t i = 0; i < open.count; ++i) {
    if (s_.cluster_state[open.offset + i] != ClusterState::kEstimated) continue;
    const auto bytes = static_cast<float>(segment.clusters.rows(local + i) * row_bytes);
    bool wanted = false;
    for (size_t g = 0; g < group_ && !wanted; ++g) {
      const float doubt = s_.cluster_doubt[group_ * open.offset + g * open.count + i];
      wanted = doubt * s_.cluster_factor[g] > threshold.doubt_per_byte * bytes;
    }
    for (size_t g = 0; g < threshold.logit.size() && !wanted; ++g) {
      const float sigma = s_.cluster_norms[g] * sums.deviation[i];
      const float reach = threshold.reach * sigma * sums.deviation_limit[i];
      wanted = ClusterLogits(open, g)[i] + reach >= threshold.logit[g];
    }
    if (wanted) s_.to_code.push_back({opened, static_cast<uint32_t>(i)});
  }
}

void Descent::PrefetchCodes(const DescentState::WantedCluster& wanted) const {
  const OpenedSuper& open = s_.opened[wanted.opened];
  const Segment& segment = SegmentOf(open);
  const size_t local = open.first_node % part_.clusters_per_segment + wanted.cluster;
  const size_t first = segment.clusters.row_begin[local], rows = segment.clusters.rows(local);
  PrefetchBytes(segment.residuals.row(first), rows * segment.residuals.row_bytes);
  PrefetchBytes(segment.residuals.factor.data() + first, rows);
}

// Doubt about a row is the square of its mass times the doubt of mass 1.
void Descent::SetRowFloors(const DescentThreshold& threshold) {
  s_.row_floor.resize(group_);
  const float allowed = threshold.doubt_per_byte * static_cast<float>(key_bytes_);
  for (size_t g = 0; g < group_; ++g) s_.row_floor[g] = allowed / DoubtFactor(g, kRowDoubt);
}

void Descent::ListWantedRows(uint32_t index, const DescentThreshold& threshold) {
  const CodedCluster& coded = s_.coded[index];
  for (size_t g = 0; g < group_; ++g) {
    const RowTotals& totals = s_.row_totals[index * group_ + g];
    if (totals.best_mass * totals.best_mass * totals.doubt > s_.row_floor[g]) {
      ListRows(index, s_.row_mass.data() + RowsBegin(coded, g),
               std::sqrt(s_.row_floor[g] / totals.doubt));
    }
    if (threshold.row_logit.empty()) continue;
    const float floor = threshold.row_logit[g] - threshold.row_deviations * totals.deviation;
    if (totals.best_rest >= floor) {
      ListRows(index, s_.row_logits.data() + RowsBegin(coded, g), floor);
    }
  }
}

// The rows of a coded cluster whose value reaches `floor`.
void Descent::ListRows(uint32_t index, const float* values, float floor) {
  const CodedCluster& coded = s_.coded[index];
  uint8_t* exact = s_.row_exact.data() + coded.offset;
  s_.found.resize(std::max<size_t>(s_.found.size(), coded.rows + 1));
  const size_t count = FindRows(values, exact, coded.rows, floor, s_.found.data());
  for (size_t i = 0; i < count; ++i) {
    exact[s_.found[i]] = kRowWanted;
    s_.wanted.push_back({index, s_.found[i]});
  }
}

}  // namespace attic
