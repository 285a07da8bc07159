#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "attention/element_type.h"
#include "base/status_macros.h"
#include "server/storage/segment_codec.h"

namespace attic {
namespace {

constexpr float kLogCountTolerance = 1e-3f;  // libraries differ in the last bits

absl::Status Damaged(SectionKind kind, const char* what) {
  return absl::DataLossError(absl::StrCat("section ", SectionName(kind), ": ", what));
}

// From 0 to `last`, never falling.
bool Ascends(std::span<const uint32_t> begins, size_t last) {
  return begins.front() == 0 && begins.back() == last &&
         std::is_sorted(begins.begin(), begins.end());
}

bool AllFinite(std::span<const float> numbers) {
  return AllFinite(std::as_bytes(numbers).data(), ElementType::kFloat32, numbers.size());
}

bool AllFiniteBFloat16(const std::vector<std::byte>& bytes) {
  return AllFinite(bytes.data(), ElementType::kBFloat16,
                   bytes.size() / ElementBytes(ElementType::kBFloat16));
}

// Lengths and the like.
bool AllSizes(std::span<const float> numbers) {
  return AllFinite(numbers) &&
         std::all_of(numbers.begin(), numbers.end(), [](float x) { return x >= 0; });
}

bool IsNear(float x, float expected) { return std::abs(x - expected) <= kLogCountTolerance; }

absl::Status ValidateSums(const ClusterSums& sums, size_t tokens, SectionKind kind) {
  if (!Ascends(sums.row_begin, tokens)) return Damaged(kind, "row_begin");
  if (!AllFiniteBFloat16(sums.centroids)) return Damaged(kind, "centroids");
  if (!AllFiniteBFloat16(sums.mean_values)) return Damaged(kind, "mean_values");
  if (!AllSizes(sums.deviation)) return Damaged(kind, "deviation");
  if (!AllSizes(sums.radius)) return Damaged(kind, "radius");
  for (size_t group = 0; group < sums.count; ++group) {
    const size_t rows = sums.rows(group);
    const float log_count = std::log(static_cast<float>(rows));
    const float limit = rows > 1 ? std::sqrt(2 * log_count) : 0.0f;
    const bool right = rows == 0 ? sums.log_count[group] == -std::numeric_limits<float>::infinity()
                                 : IsNear(sums.log_count[group], log_count);
    if (!right) return Damaged(kind, "log_count");
    if (!IsNear(sums.deviation_limit[group], limit)) return Damaged(kind, "deviation_limit");
  }
  return absl::OkStatus();
}

// Super-clusters are runs of clusters: of the same rows.
absl::Status ValidateSuperClusterBegin(const Segment& segment) {
  constexpr SectionKind kKind = SectionKind::kSuperClusterBegin;
  const std::vector<uint32_t>& begin = segment.super_cluster_begin;
  if (!Ascends(begin, segment.clusters.count)) return Damaged(kKind, "order");
  for (size_t i = 0; i < begin.size(); ++i) {
    if (segment.clusters.row_begin[begin[i]] != segment.super_clusters.row_begin[i]) {
      return Damaged(kKind, "rows of clusters and super-clusters differ");
    }
  }
  return absl::OkStatus();
}

// Every position once, those of a cluster ascending.
absl::Status ValidateRowPositions(const Segment& segment) {
  constexpr SectionKind kKind = SectionKind::kRowPositions;
  std::vector<uint8_t> seen(segment.tokens, 0);
  for (const uint16_t position : segment.row_position) {
    if (position >= segment.tokens || seen[position] != 0) {
      return Damaged(kKind, "not each position once");
    }
    seen[position] = 1;
  }
  for (size_t cluster = 0; cluster < segment.clusters.count; ++cluster) {
    const auto begin = segment.row_position.begin() + segment.clusters.row_begin[cluster];
    if (!std::is_sorted(begin, begin + segment.clusters.rows(cluster))) {
      return Damaged(kKind, "positions of a cluster do not ascend");
    }
  }
  return absl::OkStatus();
}

// The blocks of a group hold its rows, each once and then none, by descending radius.
bool BlocksHoldRows(const SignCodes& codes, size_t group, uint32_t begin, uint32_t end,
                    std::vector<uint8_t>& seen) {
  const size_t rows = end - begin;
  const uint32_t first = codes.group_block[group], last = codes.group_block[group + 1];
  if (last - first != (rows + kCodeBlockRows - 1) / kCodeBlockRows) return false;
  if (!std::is_sorted(codes.radius.begin() + first, codes.radius.begin() + last,
                      std::greater<float>())) {
    return false;
  }
  const std::span<const uint16_t> slots(codes.row.data() + first * kCodeBlockRows,
                                        (last - first) * kCodeBlockRows);
  for (size_t slot = 0; slot < slots.size(); ++slot) {
    const uint16_t row = slots[slot];
    if (slot >= rows) {
      if (row != SignCodes::kNoRow) return false;
      continue;
    }
    if (row < begin || row >= end || seen[row] != 0) return false;
    seen[row] = 1;
  }
  return true;
}

absl::Status ValidateSignCodes(const Segment& segment) {
  constexpr SectionKind kKind = SectionKind::kSignCodes;
  const SignCodes& codes = segment.codes;
  if (!Ascends(codes.group_block, codes.block_count())) return Damaged(kKind, "group_block");
  if (!AllSizes(codes.radius)) return Damaged(kKind, "radius");
  if (!AllSizes(codes.factor)) return Damaged(kKind, "factor");
  std::vector<uint8_t> seen(segment.tokens, 0);
  const std::vector<uint32_t>& row_begin = segment.super_clusters.row_begin;
  for (size_t group = 0; group < segment.super_clusters.count; ++group) {
    if (!BlocksHoldRows(codes, group, row_begin[group], row_begin[group + 1], seen)) {
      return Damaged(kKind, "rows of a super-cluster");
    }
  }
  return absl::OkStatus();
}

absl::Status ValidateFacts(const Segment& segment) {
  for (const double fact :
       {segment.value_scatter, segment.clusters.scatter, segment.clusters.value_scatter,
        segment.super_clusters.scatter, segment.super_clusters.value_scatter}) {
    if (!std::isfinite(fact) || fact < 0) return Damaged(SectionKind::kFacts, "a scatter");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ValidateSegment(const Segment& segment) {
  ATTIC_RETURN_IF_ERROR(ValidateSums(segment.clusters, segment.tokens, SectionKind::kClusters));
  ATTIC_RETURN_IF_ERROR(
      ValidateSums(segment.super_clusters, segment.tokens, SectionKind::kSuperClusters));
  ATTIC_RETURN_IF_ERROR(ValidateSuperClusterBegin(segment));
  ATTIC_RETURN_IF_ERROR(ValidateRowPositions(segment));
  ATTIC_RETURN_IF_ERROR(ValidateSignCodes(segment));
  if (!AllSizes(segment.residuals.factor_unit)) {
    return Damaged(SectionKind::kResidualCodes, "factor_unit");
  }
  return ValidateFacts(segment);
}

}  // namespace attic
