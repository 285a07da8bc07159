#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "attention/partial_attention.h"
#include "attention/vector_kernels.h"
#include "server/index/search/descent.h"

namespace attic {
namespace {

constexpr float kNegativeInfinity = -std::numeric_limits<float>::infinity();
// A floor this far above what is certain is lowered.
constexpr float kFloorTooHigh = 1.5f;
// Keys scored exactly for each one of the best that is asked for.
constexpr size_t kCandidatesPerKey = 4;
// Of the bytes that a limited search may read; the rest is for scoring what was found.
constexpr double kCodesShare = 0.8;

}  // namespace

void Descent::FindHiddenKeys(float log_share_min, double bytes_max) {
  NeedleRequest needles{.queries = request_.queries,
                        .super_logits = s_.super_logits,
                        .range = request_.range,
                        .log_share_min = log_share_min,
                        .count = part_.options.needle_candidates};
  s_.log_floor = s_.log_total;
  const bool limited = bytes_max < std::numeric_limits<double>::infinity();
  s_.keys_may_hide = false;
  if (limited) {
    const double bytes = bytes_max / static_cast<double>(group_);
    const auto key_bytes =
        static_cast<double>(part_.shape.head_dim * ElementBytes(part_.shape.element_type));
    needles.count =
        std::min(needles.count, static_cast<size_t>((1 - kCodesShare) * bytes / key_bytes));
    s_.keys_may_hide = RaiseFloorsToBudget(log_share_min, kCodesShare * bytes);
    if (needles.count == 0) return;
  }
  FindNeedles(part_, needles, request_.helpers, s_.log_floor, s_.needles, read_);
  if (!limited && FloorWasTooHigh()) {
    FindNeedles(part_, needles, request_.helpers, s_.log_floor, s_.needles, read_);
  }
  s_.wanted.clear();
  for (size_t g = 0; g < group_; ++g) {
    for (const NeedleCandidate& needle : s_.needles.best[g]) {
      if (needle.logit - s_.log_floor[g] < log_share_min) break;  // best first
      WantHiddenKey(needle);
    }
  }
  MakeWantedExact({});
}

// Blocks of codes are scanned whose base and radius reach the floor: so many that they fit.
bool Descent::RaiseFloorsToBudget(float log_share_min, double bytes_max) {
  const size_t blocks = part_.tables.block_radius.size();
  const double block_bytes =
      static_cast<double>(part_.rotation->code_dim() / 8 + 1) * kCodeBlockRows;
  const auto affordable = static_cast<size_t>(bytes_max / block_bytes);
  if (affordable >= blocks) return false;
  const float* radius = part_.tables.block_radius.data();
  bool raised = false;
  s_.buffer.resize(blocks);
  for (size_t g = 0; g < group_; ++g) {
    const float* query = request_.queries.data() + g * part_.shape.head_dim;
    const float length = std::sqrt(Dot(query, query, part_.shape.head_dim));
    for (size_t i = 0; i < super_count_; ++i) {
      const float base = s_.super_logits[g * super_count_ + i];
      const bool counts = s_.super_state[i] != SuperState::kExcluded;
      for (uint32_t b = part_.first_block(i); b < part_.last_block(i); ++b) {
        s_.buffer[b] = counts ? base + length * radius[b] : kNegativeInfinity;
      }
    }
    const auto last = s_.buffer.begin() + static_cast<std::ptrdiff_t>(affordable);
    std::nth_element(s_.buffer.begin(), last, s_.buffer.end(), std::greater<float>());
    raised = raised || *last - log_share_min > s_.log_floor[g];
    s_.log_floor[g] = std::max(s_.log_floor[g], *last - log_share_min);
  }
  return raised;
}

void Descent::FindBestKeys(size_t count) {
  const NeedleRequest needles{
      .queries = request_.queries,
      .super_logits = s_.super_logits,
      .range = request_.range,
      .log_share_min = kNegativeInfinity,
      .count = std::max(part_.options.needle_candidates / 4, kCandidatesPerKey * count)};
  s_.log_floor = s_.log_total;
  FindNeedles(part_, needles, request_.helpers, s_.log_floor, s_.needles, read_);
  s_.wanted.clear();
  for (size_t g = 0; g < group_; ++g) {
    const std::vector<NeedleCandidate>& best = s_.needles.best[g];
    for (size_t i = 0; i < std::min(count, best.size()); ++i) WantHiddenKey(best[i]);
  }
  MakeWantedExact({});
}

// Estimates may exceed the truth, most of all where queries are sharp, and would hide keys that
// matter. Where no key was found that bears an estimate out, the floor goes down to what is
// certain: the mean of exponentials is at least the exponential of the mean.
bool Descent::FloorWasTooHigh() {
  bool too_high = false;
  const float* log_count = part_.super_sums().log_count;
  for (size_t g = 0; g < group_; ++g) {
    float certain = s_.other_log_mass[g];
    if (!s_.needles.best[g].empty()) {
      certain = std::max(certain, s_.needles.best[g].front().logit);
    }
    if (s_.log_floor[g] - certain < kFloorTooHigh) continue;
    const float* logits = s_.super_logits.data() + g * super_count_;
    s_.buffer.resize(super_count_);
    for (size_t i = 0; i < super_count_; ++i) {
      const bool whole = s_.super_state[i] == SuperState::kWhole;
      s_.buffer[i] = whole ? logits[i] + log_count[i] : kNegativeInfinity;
    }
    const float peak = MaxElement(s_.buffer);
    if (peak != kNegativeInfinity) {
      certain = LogAddExp(certain, peak + std::log(ExpInPlace(peak, s_.buffer)));
    }
    if (s_.log_floor[g] - certain < kFloorTooHigh) continue;
    s_.log_floor[g] = certain;
    too_high = true;
  }
  return too_high;
}

void Descent::WantHiddenKey(const NeedleCandidate& needle) {
  const Segment& segment = *part_.segments[needle.segment];
  const size_t local = segment.cluster_of_row(needle.row);
  const std::vector<uint32_t>& begin = segment.super_cluster_begin;
  const auto after = std::upper_bound(begin.begin(), begin.end(), local);
  const auto local_super = static_cast<size_t>(after - begin.begin() - 1);
  const size_t place = OpenSuper(needle.segment * part_.super_clusters_per_segment + local_super);
  const OpenedSuper open = s_.opened[place];
  const size_t cluster = local - begin[local_super];
  ClusterState& state = s_.cluster_state[open.offset + cluster];
  if (state == ClusterState::kPartial || state == ClusterState::kExcluded) return;
  if (state == ClusterState::kEstimated) CodeCluster(open, cluster);
  const uint32_t coded = s_.coded_index[open.offset + cluster] - 1;
  const uint32_t row = needle.row - segment.clusters.row_begin[local];
  uint8_t& exact = s_.row_exact[s_.coded[coded].offset + row];
  if (exact != 0) return;  // already, or wanted for another query of the group
  exact = kRowWanted;
  s_.wanted.push_back({coded, row, needle.segment, needle.row});
}

}  // namespace attic
