#include "server/index/search/cluster_selection.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "attention/vector_kernels.h"

namespace attic {
namespace {

constexpr float kNegativeInfinity = -std::numeric_limits<float>::infinity();
// Clusters whose estimated share of the mass is below this are not worth opening or attending.
constexpr float kLogShareMin = -13.8f;  // one in a million
// A key found by its code counts for more than its share, because the estimate of its cluster
// does not contain it.
constexpr float kNeedleBonus = 2.0f;
// A floor this far above what is certain is lowered.
constexpr float kFloorTooHigh = 1.5f;
constexpr float kLogNeedleShareMin = -6.9f;  // one in 1,000

bool HigherPriority(const ClusterCandidate& a, const ClusterCandidate& b) {
  return a.priority > b.priority;
}

float LogSumExpInPlace(std::span<float> x) {
  const float peak = MaxElement(x);
  return peak == kNegativeInfinity ? peak : peak + std::log(ExpInPlace(peak, x));
}

}  // namespace

ClusterSelector::ClusterSelector(const IndexedPart& part, const SelectionRequest& request,
                                 ClusterSelection& selection, ReadStatistics& read)
    : part_(part),
      request_(request),
      group_(request.other_log_mass.size()),
      super_count_(part.super_cluster_count()),
      log_share_min_(request.best_keys || part.options.negligible_share <= 0 ? kNegativeInfinity
                                                                             : kLogShareMin),
      s_(selection),
      read_(read) {}

void ClusterSelector::Begin() {
  s_.super_state.assign(super_count_, SuperState::kWhole);
  ClearNodes();
  s_.opened.clear();
  s_.opened_log_mass.clear();
  s_.exact.clear();
  s_.partial.clear();
  s_.pool.clear();
  s_.best_needle.assign(group_, kNegativeInfinity);
  SetNorms();
  ScoreSuperClusters();
  for (size_t i = 0; i < part_.segments.size(); ++i) MarkSegment(i);
  UpdateTotals();
}

// A query touches few nodes of very many, so only those are cleared.
void ClusterSelector::ClearNodes() {
  if (s_.node_state.size() != part_.node_count() || s_.ranges_marked) {
    s_.node_state.assign(part_.node_count(), NodeState::kEstimated);
    s_.pool_slot.assign(part_.node_count(), 0);
  }
  for (const uint32_t node : s_.touched) {
    if (node >= part_.node_count()) continue;
    s_.node_state[node] = NodeState::kEstimated;
    s_.pool_slot[node] = 0;
  }
  s_.touched.clear();
  s_.ranges_marked = false;
}

void ClusterSelector::Refine() {
  // Codes need no more than the super-clusters, and where a single key outweighs everything there
  // is nothing left to open.
  PoolNeedles();
  if (OpenBest()) UpdateTotals();
  PoolGraphHits();
  PoolOpened();
  ChooseExact();
}

void ClusterSelector::MarkSegment(size_t index) {
  const Segment& segment = *part_.segments[index];
  const PositionRange range = request_.range;
  if (range.begin <= segment.begin_position && range.end >= segment.end_position()) return;
  const size_t first_super = index * part_.super_clusters_per_segment;
  const size_t first_node = index * part_.clusters_per_segment;
  if (segment.end_position() <= range.begin || segment.begin_position >= range.end) {
    s_.ranges_marked = true;
    std::fill_n(s_.super_state.begin() + first_super, part_.super_clusters_per_segment,
                SuperState::kExcluded);
    std::fill_n(s_.node_state.begin() + first_node, part_.clusters_per_segment,
                NodeState::kExcluded);
    return;
  }
  for (size_t s = 0; s < segment.super_clusters.count; ++s) {
    size_t rows = 0;
    const size_t begin = segment.super_cluster_begin[s], end = segment.super_cluster_begin[s + 1];
    for (size_t c = begin; c < end; ++c) {
      const Segment::Rows in_range = segment.RowsInRange(c, range);
      const size_t n = in_range.end - in_range.begin;
      rows += n;
      if (n == segment.clusters.rows(c)) continue;
      s_.node_state[first_node + c] = n == 0 ? NodeState::kExcluded : NodeState::kPartial;
      s_.touched.push_back(static_cast<uint32_t>(first_node + c));
      if (n != 0) s_.partial.push_back(static_cast<uint32_t>(first_node + c));
    }
    if (rows == 0) {
      s_.super_state[first_super + s] = SuperState::kExcluded;
    } else if (rows != segment.super_clusters.rows(s)) {
      OpenSuper(first_super + s);
    }
  }
}

void ClusterSelector::SetNorms() {
  const EstimateTerms& terms = *part_.terms;
  const size_t head_dim = part_.shape.head_dim;
  s_.super_norms.resize(group_);
  s_.cluster_norms.resize(group_);
  for (size_t g = 0; g < group_; ++g) {
    const std::span<const float> query = request_.queries.subspan(g * head_dim, head_dim);
    s_.super_norms[g] = DeviationNorm(terms.variance, terms.super_clusters, query);
    s_.cluster_norms[g] = DeviationNorm(terms.variance, terms.clusters, query);
  }
}

void ClusterSelector::ScoreSuperClusters() {
  s_.super_logits.resize(group_ * super_count_);
  s_.super_log_mass.resize(group_ * super_count_);
  ScoreVectors(request_.queries.data(), group_, part_.super_centroids(), s_.super_logits.data());
  for (size_t g = 0; g < group_; ++g) {
    EstimateLogMass(s_.super_logits.data() + g * super_count_, part_.super_sums(),
                    s_.super_norms[g], s_.super_log_mass.data() + g * super_count_);
  }
  read_.bytes_read += super_count_ * (part_.shape.head_dim * 2 + 3 * sizeof(float));
}

void ClusterSelector::UpdateTotals() {
  s_.log_rest.resize(group_);
  s_.log_total.assign(request_.other_log_mass.begin(), request_.other_log_mass.end());
  for (size_t g = 0; g < group_; ++g) {
    s_.buffer.resize(super_count_);
    const float* super_mass = s_.super_log_mass.data() + g * super_count_;
    const SuperState* states = s_.super_state.data();
    float* buffer = s_.buffer.data();
    for (size_t i = 0; i < super_count_; ++i) {
      buffer[i] = states[i] == SuperState::kWhole ? super_mass[i] : kNegativeInfinity;
    }
    for (const OpenedSuper& open : s_.opened) {
      const float* mass = s_.opened_log_mass.data() + open.offset * group_ + g * open.count;
      for (size_t i = 0; i < open.count; ++i) {
        const bool counts = s_.node_state[open.first_node + i] != NodeState::kExcluded;
        s_.buffer.push_back(counts ? mass[i] : kNegativeInfinity);
      }
    }
    s_.log_rest[g] = LogSumExpInPlace(s_.buffer);
    s_.log_total[g] = std::max(LogAddExp(s_.log_total[g], s_.log_rest[g]), s_.best_needle[g]);
  }
}

void ClusterSelector::OpenSuper(size_t super_cluster) {
  if (s_.super_state[super_cluster] != SuperState::kWhole) return;
  s_.super_state[super_cluster] = SuperState::kOpened;
  const size_t index = super_cluster / part_.super_clusters_per_segment;
  const size_t local = super_cluster % part_.super_clusters_per_segment;
  const Segment& segment = *part_.segments[index];
  const size_t begin = segment.super_cluster_begin[local];
  const size_t count = segment.super_cluster_begin[local + 1] - begin;
  if (count == 0) return;
  const size_t first_node = index * part_.clusters_per_segment + begin;
  const size_t offset = s_.opened_log_mass.size() / group_;
  s_.opened.push_back({static_cast<uint32_t>(super_cluster), static_cast<uint32_t>(first_node),
                       static_cast<uint32_t>(count), static_cast<uint32_t>(offset)});
  s_.opened_log_mass.resize(s_.opened_log_mass.size() + group_ * count);
  float* mass = s_.opened_log_mass.data() + offset * group_;
  ScoreVectors(request_.queries.data(), group_, part_.centroids().rows(first_node, count), mass);
  const GroupSums sums = GroupSums::Of(segment.clusters, begin, count);
  for (size_t g = 0; g < group_; ++g) {
    EstimateLogMass(mass + g * count, sums, s_.cluster_norms[g], mass + g * count);
  }
  read_.bytes_read += count * (part_.shape.head_dim * 2 + 3 * sizeof(float));
}

bool ClusterSelector::OpenBest() {
  bool any = false;
  for (size_t g = 0; g < group_; ++g) {
    const std::span<float> mass(s_.super_log_mass.data() + g * super_count_, super_count_);
    any |= MaxElement(mass) - s_.log_total[g] > log_share_min_;
  }
  if (!any) return false;
  const auto budget = static_cast<size_t>(part_.options.estimated_clusters_share *
                                          static_cast<double>(part_.node_count()));
  const size_t supers =
      std::max<size_t>(1, budget * super_count_ / std::max<size_t>(1, part_.node_count()));
  s_.super_pool.clear();
  for (uint32_t i = 0; i < super_count_; ++i) {
    if (s_.super_state[i] != SuperState::kWhole) continue;
    float priority = kNegativeInfinity;
    for (size_t g = 0; g < group_; ++g) {
      priority = std::max(priority, s_.super_log_mass[g * super_count_ + i] - s_.log_total[g]);
    }
    if (priority > log_share_min_) s_.super_pool.push_back({priority, i});
  }
  if (s_.super_pool.size() > supers) {
    std::nth_element(s_.super_pool.begin(), s_.super_pool.begin() + supers, s_.super_pool.end(),
                     HigherPriority);
    s_.super_pool.resize(supers);
  }
  for (const ClusterCandidate& best : s_.super_pool) OpenSuper(best.node);
  return !s_.super_pool.empty();
}

void ClusterSelector::AddToPool(uint32_t node, float priority) {
  if (s_.node_state[node] != NodeState::kEstimated || priority <= log_share_min_) return;
  uint32_t& slot = s_.pool_slot[node];
  if (slot != 0) {
    float& known = s_.pool[slot - 1].priority;
    known = std::max(known, priority);
    return;
  }
  s_.touched.push_back(node);
  s_.pool.push_back({priority, node});
  slot = static_cast<uint32_t>(s_.pool.size());
}

// Estimates may exceed the truth, most of all where queries are sharp, and would hide keys that
// matter. Where no key was found that bears an estimate out, the floor goes down to what is
// certain: the mean of exponentials is at least the exponential of the mean.
bool ClusterSelector::FloorWasTooHigh() {
  bool too_high = false;
  const float* log_count = part_.super_sums().log_count;
  for (size_t g = 0; g < group_; ++g) {
    float certain = request_.other_log_mass[g];
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
    certain = LogAddExp(certain, LogSumExpInPlace(s_.buffer));
    if (s_.log_floor[g] - certain < kFloorTooHigh) continue;
    s_.log_floor[g] = certain;
    too_high = true;
  }
  return too_high;
}

void ClusterSelector::PoolNeedles() {
  const NeedleRequest needles{
      .queries = request_.queries,
      .super_logits = s_.super_logits,
      .range = request_.range,
      .log_share_min = request_.best_keys ? kNegativeInfinity : kLogNeedleShareMin,
      .count = request_.needle_candidates};
  s_.log_floor = s_.log_total;
  FindNeedles(part_, needles, request_.helpers, s_.log_floor, s_.needles, read_);
  if (!request_.best_keys && FloorWasTooHigh()) {
    FindNeedles(part_, needles, request_.helpers, s_.log_floor, s_.needles, read_);
  }
  for (size_t g = 0; g < group_; ++g) {
    if (!s_.needles.best[g].empty()) s_.best_needle[g] = s_.needles.best[g].front().logit;
    s_.log_total[g] = std::max(s_.log_total[g], s_.best_needle[g]);
    for (const NeedleCandidate& needle : s_.needles.best[g]) {
      const size_t node = needle.segment * part_.clusters_per_segment +
                          part_.segments[needle.segment]->cluster_of_row(needle.row);
      AddToPool(static_cast<uint32_t>(node), needle.logit - s_.log_total[g] + kNeedleBonus);
    }
  }
}

void ClusterSelector::PoolGraphHits() {
  if (part_.graph == nullptr || part_.node_count() < part_.options.graph_clusters_min) return;
  const size_t width = std::min(exact_budget(), part_.options.graph_search_width);
  const size_t head_dim = part_.shape.head_dim;
  for (size_t g = 0; g < group_; ++g) {
    // All that sums know of beside what is found already is too little to search for.
    if (s_.log_rest[g] - s_.log_total[g] < log_share_min_) continue;
    uint64_t visits = 0;
    part_.graph->Search(request_.queries.data() + g * head_dim, part_.centroids(), width, s_.graph,
                        s_.graph_best, visits);
    for (const ScoredNode& hit : s_.graph_best) {
      const ClusterSums& sums = part_.segment_of_node(hit.node).clusters;
      float log_mass = 0;
      EstimateLogMass(&hit.score, GroupSums::Of(sums, hit.node % part_.clusters_per_segment, 1),
                      s_.cluster_norms[g], &log_mass);
      AddToPool(hit.node, log_mass - s_.log_total[g]);
    }
    read_.graph_visits += visits;
    read_.bytes_read += visits * head_dim * 2;
  }
}

void ClusterSelector::PoolOpened() {
  for (const OpenedSuper& open : s_.opened) {
    const float* mass = s_.opened_log_mass.data() + open.offset * group_;
    for (uint32_t i = 0; i < open.count; ++i) {
      float priority = kNegativeInfinity;
      for (size_t g = 0; g < group_; ++g) {
        priority = std::max(priority, mass[g * open.count + i] - s_.log_total[g]);
      }
      AddToPool(open.first_node + i, priority);
    }
  }
}

size_t ClusterSelector::exact_budget() const {
  const auto share = static_cast<size_t>(part_.options.exact_clusters_share *
                                         static_cast<double>(part_.node_count()));
  return std::max(share, part_.options.exact_clusters_min);
}

size_t ClusterSelector::SuperOfNode(size_t node) const {
  const size_t index = node / part_.clusters_per_segment;
  const size_t local = node % part_.clusters_per_segment;
  const std::vector<uint32_t>& begin = part_.segments[index]->super_cluster_begin;
  const auto after = std::upper_bound(begin.begin(), begin.end(), local);
  return index * part_.super_clusters_per_segment + static_cast<size_t>(after - begin.begin() - 1);
}

void ClusterSelector::ChooseExact() {
  const size_t budget = exact_budget();
  if (s_.pool.size() > budget) {
    std::nth_element(s_.pool.begin(), s_.pool.begin() + budget, s_.pool.end(), HigherPriority);
    s_.pool.resize(budget);
  }
  std::sort(s_.pool.begin(), s_.pool.end(), HigherPriority);
  double rest = 0;
  while (!request_.best_keys && !s_.pool.empty()) {
    rest += std::exp(double{s_.pool.back().priority});
    if (rest > part_.options.negligible_share) break;
    s_.pool.pop_back();
  }
  for (const ClusterCandidate& chosen : s_.pool) {
    OpenSuper(SuperOfNode(chosen.node));
    s_.node_state[chosen.node] = NodeState::kExact;
  }
  s_.exact.assign(s_.pool.begin(), s_.pool.end());
}

}  // namespace attic
