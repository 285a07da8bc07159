#include "server/index/search/descent_answer.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "attention/vector_kernels.h"
#include "server/index/codes/residual_kernels.h"
#include "server/index/search/fast_sum.h"

namespace attic {
namespace {

constexpr size_t kSupersTogether = 64;
constexpr float kSeenMin = 2e-9f;  // of weights relative to the largest logit's
constexpr float kNegativeInfinity = -std::numeric_limits<float>::infinity();

class AnswerBuilder {
 public:
  AnswerBuilder(const IndexedPart& part, std::span<const float> queries, const DescentState& state,
                std::span<AttentionAccumulator> accumulators, AnswerScratch& scratch,
                ReadStatistics& read)
      : part_(part),
        queries_(queries),
        state_(state),
        accumulators_(accumulators),
        group_(accumulators.size()),
        super_count_(part.super_cluster_count()),
        value_dim_(part.shape.value_dim),
        code_dim_(ResidualCodeDim(*part.rotation)),
        s_(scratch),
        read_(read) {
    s_.sums.assign(group_ * value_dim_, 0.0f);
    s_.direction.resize(value_dim_);
  }

  void AddSupers(bool opened_too) {
    if (!opened_too && SupersAreUnseen()) return;
    s_.super_mass = state_.super_log_mass;
    for (size_t i = 0; i < super_count_; ++i) {
      const SuperState state = state_.super_state[i];
      const bool counts =
          state == SuperState::kWhole || (opened_too && state == SuperState::kOpened);
      read_.estimated_super_clusters += counts && !opened_too;
      if (counts) continue;
      for (size_t g = 0; g < group_; ++g) SuperMass(g)[i] = kNegativeInfinity;
    }
    for (size_t g = 0; g < group_; ++g) {
      const float peak = MaxElement(SuperMass(g));
      if (peak == kNegativeInfinity) {
        std::fill(SuperMass(g).begin(), SuperMass(g).end(), 0.0f);
        continue;
      }
      const float shift = accumulators_[g].RaiseMax(peak);
      accumulators_[g].AddWeight(ExpInPlace(shift, SuperMass(g)));
      const float spread =
          SpreadMass(SuperMass(g).data(), part_.super_sums(), state_.super_norms[g]);
      AddFirstOrder(g, part_.terms->super_clusters, spread);
    }
    const uint64_t bytes = AddSuperMeans();
    // They are read before anything is refined, and are in the cache when they are needed again.
    if (opened_too) read_.bytes_read += bytes;
    FoldSums();
  }

  // Their masses are below the rounding of what is exact.
  bool SupersAreUnseen() const {
    constexpr double kUnseenShare = 1e-9;
    for (size_t g = 0; g < group_; ++g) {
      const float* mass = state_.super_mass.data() + g * super_count_;
      const double sum = FastSum({mass, super_count_});
      const double total = std::exp(double{state_.log_total[g]} - state_.reference[g]);
      if (!(sum < kUnseenShare * total)) return false;
    }
    return true;
  }

  void AddOpened() {
    if (state_.opened.empty()) return;
    RaiseMaxima();
    s_.cluster_mass = state_.cluster_log_mass;
    for (const OpenedSuper& open : state_.opened) MaskClusters(open);
    for (size_t g = 0; g < group_; ++g) {
      double total = 0;
      float spread = 0;
      for (const OpenedSuper& open : state_.opened) {
        const std::span<float> mass = ClusterMass(s_.cluster_mass, open, g);
        total += ExpInPlace(accumulators_[g].max_logit(), mass);
        const size_t local = open.first_node % part_.clusters_per_segment;
        const ClusterSums& sums = part_.segment_of_node(open.first_node).clusters;
        spread += SpreadMass(mass.data(), GroupSums::Of(sums, local, open.count),
                             state_.cluster_norms[g]);
      }
      accumulators_[g].AddWeight(total);
      AddFirstOrder(g, part_.terms->clusters, spread);
    }
    s_.mean_weight = s_.cluster_mass;
    AddRows();
    for (const OpenedSuper& open : state_.opened) {
      const Segment& segment = part_.segment_of_node(open.first_node);
      const VectorsView means{segment.clusters.mean_values.data(), ElementType::kBFloat16,
                              segment.clusters.count, value_dim_};
      AddWeightedVectors(s_.mean_weight.data() + group_ * open.offset, group_,
                         means.rows(open.first_node % part_.clusters_per_segment, open.count),
                         s_.sums.data());
    }
    FoldSums();
  }

 private:
  std::span<float> SuperMass(size_t g) {
    return {s_.super_mass.data() + g * super_count_, super_count_};
  }
  std::span<float> ClusterMass(std::vector<float>& mass, const OpenedSuper& open, size_t g) {
    return {mass.data() + group_ * open.offset + g * open.count, open.count};
  }

  // Where queries are sharp, most super-clusters together could not be seen in the answer: their
  // means are not even read. Returns the bytes read.
  uint64_t AddSuperMeans() {
    uint64_t bytes = 0;
    for (size_t begin = 0; begin < super_count_; begin += kSupersTogether) {
      const size_t n = std::min(kSupersTogether, super_count_ - begin);
      s_.some.clear();
      float largest = 0;
      for (size_t g = 0; g < group_; ++g) {
        const std::span<float> some = SuperMass(g).subspan(begin, n);
        s_.some.insert(s_.some.end(), some.begin(), some.end());
        largest = std::max(largest, MaxElement(some));
      }
      if (largest < kSeenMin) continue;
      const VectorsView means = part_.super_mean_values().rows(begin, n);
      AddWeightedVectors(s_.some.data(), group_, means, s_.sums.data());
      bytes += means.bytes();
    }
    return bytes;
  }

  void AddFirstOrder(size_t g, const LevelTerms& level, float spread) {
    if (!part_.terms->first_order || spread == 0.0f) return;
    const size_t head_dim = part_.shape.head_dim;
    FirstOrderDirection(level.first_order, queries_.subspan(g * head_dim, head_dim), s_.direction);
    AddScaled(spread, s_.direction.data(), value_dim_, s_.sums.data() + g * value_dim_);
  }

  void FoldSums() {
    for (size_t g = 0; g < group_; ++g) {
      AddScaled(1.0f, s_.sums.data() + g * value_dim_, value_dim_,
                accumulators_[g].numerator().data());
    }
    std::fill(s_.sums.begin(), s_.sums.end(), 0.0f);
  }

  void RaiseMaxima() {
    for (size_t g = 0; g < group_; ++g) {
      float peak = kNegativeInfinity;
      for (const OpenedSuper& open : state_.opened) {
        const float* mass = state_.cluster_log_mass.data() + group_ * open.offset + g * open.count;
        for (size_t i = 0; i < open.count; ++i) {
          if (state_.cluster_state[open.offset + i] == ClusterState::kEstimated) {
            peak = std::max(peak, mass[i]);
          }
        }
      }
      for (const CodedCluster& coded : state_.coded) {
        const float* logits = state_.row_logits.data() + group_ * coded.offset + g * coded.rows;
        peak = std::max(peak, MaxElement({logits, coded.rows}));
      }
      if (peak != kNegativeInfinity) accumulators_[g].RaiseMax(peak);
    }
  }

  void MaskClusters(const OpenedSuper& open) {
    for (size_t i = 0; i < open.count; ++i) {
      const bool left = state_.cluster_state[open.offset + i] == ClusterState::kEstimated;
      read_.estimated_clusters += left;
      if (left) continue;
      for (size_t g = 0; g < group_; ++g)
        ClusterMass(s_.cluster_mass, open, g)[i] = kNegativeInfinity;
    }
  }

  // Rows of coded clusters: exact ones with their values, the others through codes.
  void AddRows() {
    if (state_.coded.empty()) return;
    s_.codes.assign(group_ * code_dim_, 0.0f);
    s_.code_offset.assign(group_, 0.0);
    s_.mass_factor.resize(group_);
    for (size_t g = 0; g < group_; ++g) {
      const double shift = double{state_.reference[g]} - accumulators_[g].max_logit();
      s_.mass_factor[g] = static_cast<float>(std::exp(shift));
    }
    for (size_t i = 0; i < state_.coded.size(); ++i) AddCoded(i);
    AddExactValues();
    for (size_t g = 0; g < group_; ++g) AddDecoded(g);
  }

  // The rows that are not exact; of those that are, the mass.
  void AddCoded(size_t index) {
    const CodedCluster& coded = state_.coded[index];
    const OpenedSuper& open = state_.opened[coded.opened];
    const size_t cluster = coded.node - open.first_node;
    const CodedRows rows =
        part_.segment_of_node(coded.node).coded_rows(coded.node % part_.clusters_per_segment);
    const uint8_t* exact = state_.row_exact.data() + coded.offset;
    for (size_t g = 0; g < group_; ++g) {
      const RowTotals& totals = state_.row_totals[index * group_ + g];
      const double factor = s_.mass_factor[g];
      accumulators_[g].AddWeight(factor * (double{totals.rest} + totals.exact));
      if (factor * totals.rest < kSeenMin) continue;
      const float ordinary = OrdinaryMass(coded, totals);
      ClusterMass(s_.mean_weight, open, g)[cluster] +=
          static_cast<float>(factor * (totals.rest + ordinary * static_cast<float>(coded.exact)));
      const size_t begin = group_ * coded.offset + g * coded.rows;
      s_.code_offset[g] += AddResiduals(rows, state_.row_mass.data() + begin, exact, ordinary,
                                        s_.codes.data() + g * code_dim_);
    }
  }

  // Of a row that is not exact. Residuals of a cluster add up to zero, and values to its sum: were
  // all rows of this mass, the cluster would be known from its mean value alone. So all count with
  // it as one, exact rows among them, and only with what they have beside it by themselves. That
  // holds of rows alike in mass; where some stand out, they differ as exact ones do.
  static float OrdinaryMass(const CodedCluster& coded, const RowTotals& totals) {
    if (coded.exact == coded.rows || totals.rest_squares <= 0) return 0.0f;
    const auto count = static_cast<float>(coded.rows - coded.exact);
    const float alike = totals.rest * totals.rest / (count * totals.rest_squares);
    return totals.rest / count * alike * alike * alike * alike;
  }

  void AddExactValues() {
    const size_t count = state_.exact_rows.size();
    s_.row_weight.resize(group_ * count);
    for (size_t i = 0; i < count; ++i) {
      const DescentState::RowPlace place = state_.exact_rows[i];
      const CodedCluster& coded = state_.coded[place.coded];
      for (size_t g = 0; g < group_; ++g) {
        const size_t at = group_ * coded.offset + g * coded.rows + place.offset;
        const RowTotals& totals = state_.row_totals[place.coded * group_ + g];
        const bool rest_is_seen = double{s_.mass_factor[g]} * totals.rest >= kSeenMin;
        const float taken = rest_is_seen ? OrdinaryMass(coded, totals) : 0.0f;
        s_.row_weight[g * count + i] = (state_.row_mass[at] - taken) * s_.mass_factor[g];
      }
    }
    AddWeightedVectors(s_.row_weight.data(), group_,
                       ScatteredRows{state_.exact_values, part_.shape.element_type, value_dim_},
                       s_.sums.data());
  }

  // Values that the sum of decoded residuals predicts: A' R^-1 sum.
  void AddDecoded(size_t g) {
    if (part_.terms->regression.empty()) return;
    float* codes = s_.codes.data() + g * code_dim_;
    const auto offset = static_cast<float>(kResidualMiddle * s_.code_offset[g]);
    for (size_t j = 0; j < code_dim_; ++j) codes[j] = (codes[j] - offset) * s_.mass_factor[g];
    s_.residual.resize(part_.shape.head_dim);
    part_.rotation->Undo(codes, s_.residual.data());
    FirstOrderDirection(part_.terms->regression, s_.residual, s_.direction);
    AddScaled(1.0f, s_.direction.data(), value_dim_, s_.sums.data() + g * value_dim_);
  }

  const IndexedPart& part_;
  const std::span<const float> queries_;
  const DescentState& state_;
  const std::span<AttentionAccumulator> accumulators_;
  const size_t group_, super_count_, value_dim_, code_dim_;
  AnswerScratch& s_;
  ReadStatistics& read_;
};

}  // namespace

void AddDescent(const IndexedPart& part, std::span<const float> queries, const DescentState& state,
                std::span<AttentionAccumulator> accumulators, AnswerScratch& scratch,
                ReadStatistics& read) {
  AnswerBuilder builder(part, queries, state, accumulators, scratch, read);
  builder.AddSupers(/*opened_too=*/false);
  builder.AddOpened();
}

void AddSuperClusters(const IndexedPart& part, std::span<const float> queries,
                      const DescentState& state, std::span<AttentionAccumulator> accumulators,
                      AnswerScratch& scratch, ReadStatistics& read) {
  AnswerBuilder(part, queries, state, accumulators, scratch, read).AddSupers(/*opened_too=*/true);
}

}  // namespace attic
