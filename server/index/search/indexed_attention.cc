#include "server/index/search/indexed_attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/time/clock.h"
#include "attention/vector_kernels.h"

namespace attic {
namespace {

constexpr absl::Duration kFinishTime = absl::Microseconds(150);
constexpr size_t kClustersPerDeadlineCheck = 16;
constexpr size_t kSupersTogether = 64;
constexpr float kSeenMin = 2e-9f;  // of weights relative to the largest logit's
constexpr float kNegativeInfinity = -std::numeric_limits<float>::infinity();

void ScanRows(const Segment& segment, size_t begin, size_t end, SearchScratch& scratch,
              ReadStatistics& read) {
  if (begin == end) return;
  const VectorsView keys = segment.key_rows().rows(begin, end - begin);
  const VectorsView values = segment.value_rows().rows(begin, end - begin);
  ScanExact(scratch.queries.data(), 1.0f, keys, values, scratch.accumulators, scratch.scan);
  read.exact_tokens += end - begin;
  read.bytes_read += keys.bytes() + values.bytes();
}

// Adds what a finished selection left to the estimate.
class EstimateAdder {
 public:
  EstimateAdder(const IndexedPart& part, SearchScratch& scratch, ReadStatistics& read)
      : part_(part),
        group_(scratch.accumulators.size()),
        value_dim_(part.shape.value_dim),
        selection_(scratch.selection),
        scratch_(scratch),
        read_(read) {}

  void Add() {
    scratch_.sums.assign(group_ * value_dim_, 0.0f);
    scratch_.direction.resize(value_dim_);
    MaskAttended();
    for (size_t g = 0; g < group_; ++g) {
      const float peak = Peak(g);
      if (peak == kNegativeInfinity) return;  // nothing is left to estimate, for any query
      Exponentiate(g, scratch_.accumulators[g].RaiseMax(peak));
    }
    AddMeanValues();
    for (size_t g = 0; g < group_; ++g) {
      AttentionAccumulator& accumulator = scratch_.accumulators[g];
      AddScaled(1.0f, scratch_.sums.data() + g * value_dim_, value_dim_,
                accumulator.numerator().data());
      if (part_.terms->first_order) AddFirstOrder(g);
    }
  }

 private:
  std::span<float> SuperMass(size_t g) {
    const size_t count = part_.super_cluster_count();
    return {selection_.super_log_mass.data() + g * count, count};
  }
  std::span<float> OpenedMass(const OpenedSuper& open, size_t g) {
    return {selection_.opened_log_mass.data() + open.offset * group_ + g * open.count, open.count};
  }

  void MaskAttended() {
    for (size_t i = 0; i < selection_.super_state.size(); ++i) {
      const bool whole = selection_.super_state[i] == SuperState::kWhole;
      read_.estimated_super_clusters += whole;
      if (whole) continue;
      for (size_t g = 0; g < group_; ++g) SuperMass(g)[i] = kNegativeInfinity;
    }
    for (const OpenedSuper& open : selection_.opened) {
      for (size_t i = 0; i < open.count; ++i) {
        const bool left = selection_.node_state[open.first_node + i] == NodeState::kEstimated;
        read_.estimated_clusters += left;
        if (left) continue;
        for (size_t g = 0; g < group_; ++g) OpenedMass(open, g)[i] = kNegativeInfinity;
      }
    }
  }

  float Peak(size_t g) {
    float peak = MaxElement(SuperMass(g));
    for (const OpenedSuper& open : selection_.opened) {
      peak = std::max(peak, MaxElement(OpenedMass(open, g)));
    }
    return peak;
  }

  // Log masses become masses relative to `shift`, in place.
  void Exponentiate(size_t g, float shift) {
    double total = ExpInPlace(shift, SuperMass(g));
    for (const OpenedSuper& open : selection_.opened) {
      total += ExpInPlace(shift, OpenedMass(open, g));
    }
    scratch_.accumulators[g].AddWeight(total);
  }

  void AddMeanValues() {
    AddSuperMeanValues();
    for (const OpenedSuper& open : selection_.opened) {
      const Segment& segment = part_.segment_of_node(open.first_node);
      const VectorsView means{segment.clusters.mean_values.data(), ElementType::kBFloat16,
                              segment.clusters.count, value_dim_};
      AddWeightedVectors(selection_.opened_log_mass.data() + open.offset * group_, group_,
                         means.rows(open.first_node % part_.clusters_per_segment, open.count),
                         scratch_.sums.data());
    }
    read_.bytes_read += read_.estimated_clusters * value_dim_ * 2;
  }

  // Where queries are sharp, most super-clusters together could not be seen in the answer: their
  // means are not even read.
  void AddSuperMeanValues() {
    const size_t count = part_.super_cluster_count();
    std::vector<float>& weights = scratch_.mass;
    for (size_t begin = 0; begin < count; begin += kSupersTogether) {
      const size_t n = std::min(kSupersTogether, count - begin);
      weights.clear();
      float largest = 0;
      for (size_t g = 0; g < group_; ++g) {
        const std::span<float> some = SuperMass(g).subspan(begin, n);
        weights.insert(weights.end(), some.begin(), some.end());
        largest = std::max(largest, MaxElement(some));
      }
      if (largest < kSeenMin) continue;
      const VectorsView means = part_.super_mean_values().rows(begin, n);
      AddWeightedVectors(weights.data(), group_, means, scratch_.sums.data());
      read_.bytes_read += means.bytes();
    }
  }

  void AddFirstOrder(size_t g) {
    const size_t head_dim = part_.shape.head_dim;
    const std::span<const float> query(scratch_.queries.data() + g * head_dim, head_dim);
    float* numerator = scratch_.accumulators[g].numerator().data();
    const float super_spread =
        SpreadMass(SuperMass(g).data(), part_.super_sums(), selection_.super_norms[g]);
    FirstOrderDirection(part_.terms->super_clusters.first_order, query, scratch_.direction);
    AddScaled(super_spread, scratch_.direction.data(), value_dim_, numerator);
    float spread = 0;
    for (const OpenedSuper& open : selection_.opened) {
      const ClusterSums& sums = part_.segment_of_node(open.first_node).clusters;
      const size_t first = open.first_node % part_.clusters_per_segment;
      spread += SpreadMass(OpenedMass(open, g).data(), GroupSums::Of(sums, first, open.count),
                           selection_.cluster_norms[g]);
    }
    FirstOrderDirection(part_.terms->clusters.first_order, query, scratch_.direction);
    AddScaled(spread, scratch_.direction.data(), value_dim_, numerator);
  }

  const IndexedPart& part_;
  const size_t group_;
  const size_t value_dim_;
  ClusterSelection& selection_;
  SearchScratch& scratch_;
  ReadStatistics& read_;
};

// Attends the chosen clusters, best first. Those not reached in time return to the estimate.
bool AttendChosen(const IndexedPart& part, absl::Time deadline, SearchScratch& scratch,
                  ReadStatistics& read) {
  ClusterSelection& selection = scratch.selection;
  for (size_t i = 0; i < selection.exact.size(); ++i) {
    if (i % kClustersPerDeadlineCheck == 0 && DeadlineIsNear(deadline)) {
      for (; i < selection.exact.size(); ++i) {
        selection.node_state[selection.exact[i].node] = NodeState::kEstimated;
      }
      return false;
    }
    const uint32_t node = selection.exact[i].node;
    const Segment& segment = part.segment_of_node(node);
    const size_t cluster = node % part.clusters_per_segment;
    ScanRows(segment, segment.clusters.row_begin[cluster], segment.clusters.row_begin[cluster + 1],
             scratch, read);
  }
  return true;
}

}  // namespace

bool DeadlineIsNear(absl::Time deadline) {
  return deadline != absl::InfiniteFuture() && absl::Now() + kFinishTime > deadline;
}

float LogSumExpOf(const AttentionAccumulator& accumulator) {
  if (accumulator.denominator() <= 0) return kEmptyLogSumExp;
  return accumulator.max_logit() + static_cast<float>(std::log(accumulator.denominator()));
}

bool AttendIndexed(const IndexedPart& part, PositionRange range, absl::Time deadline,
                   SearchScratch& scratch, std::span<float> exact_log_mass, ReadStatistics& read) {
  const size_t group = scratch.accumulators.size();
  scratch.log_mass.resize(group);
  for (size_t g = 0; g < group; ++g) {
    scratch.log_mass[g] = LogAddExp(LogSumExpOf(scratch.accumulators[g]), scratch.tail.log_mass(g));
  }
  const SelectionRequest request{.queries = scratch.queries,
                                 .other_log_mass = scratch.log_mass,
                                 .range = range,
                                 .needle_candidates = part.options.needle_candidates,
                                 .helpers = scratch.helpers};
  ClusterSelection& selection = scratch.selection;
  ClusterSelector selector(part, request, selection, read);
  selector.Begin();
  for (uint32_t node : selection.partial) {
    const Segment& segment = part.segment_of_node(node);
    const Segment::Rows rows = segment.RowsInRange(node % part.clusters_per_segment, range);
    ScanRows(segment, rows.begin, rows.end, scratch, read);
  }
  bool in_time = !DeadlineIsNear(deadline);
  if (in_time) {
    selector.Refine();
    in_time = AttendChosen(part, deadline, scratch, read);
  }
  scratch.tail.Add(scratch.accumulators, read);
  for (size_t g = 0; g < group; ++g) exact_log_mass[g] = LogSumExpOf(scratch.accumulators[g]);
  EstimateAdder(part, scratch, read).Add();
  return in_time;
}

void AttendSegmentExactly(const Segment& segment, PositionRange range, SearchScratch& scratch,
                          ReadStatistics& read) {
  if (range.begin <= segment.begin_position && range.end >= segment.end_position()) {
    ScanRows(segment, 0, segment.tokens, scratch, read);
    return;
  }
  if (range.begin >= segment.end_position() || range.end <= segment.begin_position) return;
  for (size_t cluster = 0; cluster < segment.clusters.count; ++cluster) {
    const Segment::Rows rows = segment.RowsInRange(cluster, range);
    ScanRows(segment, rows.begin, rows.end, scratch, read);
  }
}

}  // namespace attic
