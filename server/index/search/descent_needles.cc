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
// Candidates that the search for hidden keys scores exactly, at most: one for so many tokens.
constexpr size_t kTokensPerCandidate = 64;
constexpr size_t kCandidatesMin = 2048;
// Clusters sought in each super-cluster that is opened for them.
constexpr size_t kSoughtOfSuper = 2;

// The n-th largest of `x`, which is reordered; the smallest where there are fewer.
float NthLargest(std::vector<float>& x, size_t n) {
  if (x.empty()) return kNegativeInfinity;
  const auto at = x.begin() + static_cast<std::ptrdiff_t>(std::min(n, x.size()) - 1);
  std::nth_element(x.begin(), at, x.end(), std::greater<float>());
  return *at;
}

}  // namespace

size_t Descent::CandidatesMax() const {
  const auto tokens = static_cast<size_t>(part_.token_count());
  return std::min(part_.options.needle_candidates,
                  std::max(kCandidatesMin, tokens / kTokensPerCandidate));
}

void Descent::FindHiddenKeys(float log_share_min, double bytes_max) {
  NeedleRequest needles{.queries = request_.queries,
                        .super_logits = s_.super_logits,
                        .range = request_.range,
                        .log_share_min = log_share_min,
                        .count = CandidatesMax()};
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
  s_.rows.Fail(s_.needles.status);
  if (!limited && FloorWasTooHigh()) {
    FindNeedles(part_, needles, request_.helpers, s_.log_floor, s_.needles, read_);
    s_.rows.Fail(s_.needles.status);
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

void Descent::FindKeysAbove(std::span<const float> floors, size_t count) {
  const bool bounded =
      std::all_of(floors.begin(), floors.end(), [](float f) { return f != kNegativeInfinity; });
  const NeedleRequest needles{.queries = request_.queries,
                              .super_logits = s_.super_logits,
                              .range = request_.range,
                              .log_share_min = bounded ? 0.0f : kNegativeInfinity,
                              .count = std::max(CandidatesMax() / 4, kCandidatesPerKey * count),
                              .raises = !bounded};
  s_.log_floor = s_.log_total;
  if (bounded) s_.log_floor.assign(floors.begin(), floors.end());
  FindNeedles(part_, needles, request_.helpers, s_.log_floor, s_.needles, read_);
  s_.rows.Fail(s_.needles.status);
  s_.wanted.clear();
  for (size_t g = 0; g < group_; ++g) {
    const std::vector<NeedleCandidate>& best = s_.needles.best[g];
    for (size_t i = 0; i < std::min(count, best.size()); ++i) WantHiddenKey(best[i]);
  }
  MakeWantedExact({});
}

void Descent::SeekClusters(size_t width) {
  for (size_t g = 0; g < group_; ++g) {
    if (part_.graph != nullptr) {
      SeekThroughGraph(g, width);
    } else {
      SeekInSuperClusters(g, width);
    }
  }
}

void Descent::SeekThroughGraph(size_t g, size_t width) {
  const size_t head_dim = part_.shape.head_dim;
  uint64_t visits = 0;
  part_.graph->Search(request_.queries.data() + g * head_dim, part_.centroids(), width, s_.graph,
                      s_.graph_best, visits);
  for (const ScoredNode& hit : s_.graph_best) {
    const size_t segment = hit.node / part_.clusters_per_segment;
    const size_t super = SuperOf(segment, hit.node % part_.clusters_per_segment);
    if (s_.super_state[super] == SuperState::kExcluded) continue;
    const size_t opened = OpenSuper(super);
    const size_t cluster = hit.node - s_.opened[opened].first_node;
    const size_t state = s_.opened[opened].offset + cluster;
    if (s_.cluster_state[state] == ClusterState::kEstimated) CodeCluster(opened, cluster);
  }
  read_.graph_visits += visits;
  read_.bytes_read += visits * head_dim * 2;
}

void Descent::SeekInSuperClusters(size_t g, size_t width) {
  const float* logits = s_.super_logits.data() + g * super_count_;
  s_.buffer.clear();
  for (size_t i = 0; i < super_count_; ++i) {
    if (s_.super_state[i] != SuperState::kExcluded) s_.buffer.push_back(logits[i]);
  }
  const float super_floor = NthLargest(s_.buffer, std::max<size_t>(1, width / kSoughtOfSuper));
  for (size_t i = 0; i < super_count_; ++i) {
    if (s_.super_state[i] == SuperState::kWhole && logits[i] >= super_floor) OpenSuper(i);
  }
  s_.buffer.clear();
  for (const OpenedSuper& open : s_.opened) {
    s_.buffer.insert(s_.buffer.end(), ClusterLogits(open, g), ClusterLogits(open, g) + open.count);
  }
  const float floor = NthLargest(s_.buffer, width);
  for (size_t i = 0; i < s_.opened.size(); ++i) {
    for (size_t c = 0; c < s_.opened[i].count; ++c) {
      const OpenedSuper& open = s_.opened[i];
      const bool estimated = s_.cluster_state[open.offset + c] == ClusterState::kEstimated;
      if (estimated && ClusterLogits(open, g)[c] >= floor) CodeCluster(i, c);
    }
  }
}

size_t Descent::SuperOf(size_t segment, size_t cluster) const {
  const std::vector<uint32_t>& begin = part_.segments[segment]->super_cluster_begin;
  const auto after = std::upper_bound(begin.begin(), begin.end(), cluster);
  const auto local = static_cast<size_t>(after - begin.begin() - 1);
  return segment * part_.super_clusters_per_segment + local;
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
  const size_t opened = OpenSuper(SuperOf(needle.segment, local));
  const OpenedSuper open = s_.opened[opened];
  const size_t cluster = needle.segment * part_.clusters_per_segment + local - open.first_node;
  ClusterState& state = s_.cluster_state[open.offset + cluster];
  if (state == ClusterState::kPartial || state == ClusterState::kExcluded) return;
  if (state == ClusterState::kEstimated) CodeCluster(opened, cluster);
  const uint32_t coded = s_.coded_index[open.offset + cluster] - 1;
  const uint32_t row = needle.row - segment.clusters.row_begin[local];
  uint8_t& exact = s_.row_exact[s_.coded[coded].offset + row];
  if (exact != 0) return;  // already, or wanted for another query of the group
  exact = kRowWanted;
  s_.wanted.push_back({coded, row});
}

}  // namespace attic
