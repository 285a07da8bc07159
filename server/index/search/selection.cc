#include "server/index/search/selection.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>

#include "server/index/search/deadline.h"

namespace attic {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
// By what a threshold falls after its first pass, and from pass to pass at most and at least.
constexpr double kFirstFactor = 0.3;
constexpr double kFactorMin = 0.2;
constexpr double kFactorMax = 0.8;
// A pass aims beyond the goal by this share of it.
constexpr double kErrorAim = 0.95;
constexpr double kBudgetAim = 0.97;
constexpr float kDoubtMin = 1e-30f;
constexpr double kSquaredErrorSeen = 1e-10;
constexpr double kUnlimited = std::numeric_limits<double>::infinity();
// Heads whose queries find less of the mass in hidden keys than this do without them.
constexpr float kHiddenMassMin = 0.3f;
constexpr double kBudgetForCodes = 0.7;
// A key that holds more than this share of the mass must not stay hidden, whatever is asked for...
constexpr float kHiddenShare = 1e-3f;
// ...unless the errors asked for are larger.
constexpr float kHiddenShareOfError = 0.02f;
// Logits: where a search for the best keys begins, below log_total, and how it goes on.
constexpr float kFirstDrop = 2.0f;
constexpr float kDropStep = 1.0f;
constexpr float kDropMax = 16.0f;
// A key may lie so many standard deviations of its code higher than the code says.
constexpr float kCodeDeviations = 2.0f;
// Where the best keys are searched for, they may lie so far from the mean of their cluster.
constexpr float kSearchReach = 1.4f;
// Clusters sought through the graph, at least, before anything is ruled out.
constexpr size_t kClustersSought = 48;
constexpr float kBucketsPerNat = 8.0f;
constexpr size_t kBuckets = 512;
// Shares of rows known by their codes add up with some error.
constexpr double kCoverageReserve = 1.005;

}  // namespace

namespace {

// The logit of the k-th best row of each query, of exact rows or of all that are known; -infinity
// where there are fewer.
std::vector<float> KthLogits(const DescentState& state, size_t k, bool exact_only) {
  const size_t group = state.log_total.size();
  std::vector<float> kth, logits;
  for (size_t g = 0; g < group; ++g) {
    logits.clear();
    for (const CodedCluster& coded : state.coded) {
      const float* row = state.row_logits.data() + group * coded.offset + g * coded.rows;
      for (size_t i = 0; i < coded.rows; ++i) {
        const bool exact = state.row_exact[coded.offset + i] == kRowExact;
        if (exact || !exact_only) logits.push_back(row[i]);
      }
    }
    kth.push_back(-kInfinity);
    if (k == 0 || logits.size() < k) continue;
    const auto at = logits.begin() + static_cast<std::ptrdiff_t>(k - 1);
    std::nth_element(logits.begin(), at, logits.end(), std::greater<float>());
    kth.back() = *at;
  }
  return kth;
}

}  // namespace

void ReadBestKeys(size_t k, Descent& descent) {
  const DescentState& state = descent.state();
  DescentThreshold threshold{.reach = kSearchReach, .row_deviations = kCodeDeviations};
  descent.SeekClusters(std::max(kClustersSought, k / 2));
  threshold.row_logit = KthLogits(state, k, /*exact_only=*/false);
  if (!state.coded.empty()) descent.Refine(threshold, absl::InfiniteFuture());
  threshold.logit = threshold.row_logit = KthLogits(state, k, /*exact_only=*/true);
  descent.Refine(threshold, absl::InfiniteFuture());
  // Last, because the better the keys that are known, the fewer codes can hide others.
  descent.FindKeysAbove(KthLogits(state, k, /*exact_only=*/true), k);
}

namespace {

// Lowers a threshold from pass to pass until a quantity that depends on it reaches a goal. Between
// the last two passes it is taken for a power of the threshold.
class FallingThreshold {
 public:
  FallingThreshold(float first, double quantity, double goal)
      : value_(first), quantity_(quantity), goal_(goal) {}

  float value() const { return value_; }

  // A pass at value() has brought the quantity to `now`.
  void Lower(double now) {
    double factor = kFirstFactor;
    const double power = std::log(now / quantity_) / std::log(double{last_factor_});
    if (last_factor_ < 1 && std::isfinite(power) && power != 0) {
      factor = std::exp(std::log(goal_ / now) / power);
    }
    quantity_ = now;
    if (!(factor > kFactorMin)) factor = kFactorMin;
    last_factor_ = std::min(factor, kFactorMax);
    value_ *= static_cast<float>(last_factor_);
  }

 private:
  float value_;
  double last_factor_ = 1;  // 1: there was no pass before
  double quantity_;
  const double goal_;
};

class Selector {
 public:
  Selector(const SelectionPolicy& policy, const IndexedPart& part, absl::Time deadline,
           Descent& descent)
      : policy_(policy),
        part_(part),
        deadline_(deadline),
        descent_(descent),
        state_(descent.state()),
        group_(state_.log_total.size()) {}

  void LookForHiddenKeys() {
    const double code_bytes = CodeBytes();
    if (code_bytes == 0) return;
    descent_.FindHiddenKeys(std::log(HiddenShare()), code_bytes);
    descent_.UpdateTotals();
  }

  bool Run() {
    switch (policy_.goal) {
      case SelectionGoal::kTokenBudget:
        return SpendBudget();
      case SelectionGoal::kTopK:
      case SelectionGoal::kCoverage:
        return ReadBestRows();
      case SelectionGoal::kInnerProductRange:
        return ReadRange();
      case SelectionGoal::kDefault:
      case SelectionGoal::kMaxError:
        break;
    }
    return ReduceError();
  }

 private:
  double error_asked() const {
    return policy_.goal == SelectionGoal::kMaxError ? policy_.amount : part_.options.max_error;
  }
  float HiddenShare() const {
    const auto by_error = static_cast<float>(kHiddenShareOfError * error_asked());
    return policy_.goal == SelectionGoal::kMaxError ? std::max(kHiddenShare, by_error)
                                                    : kHiddenShare;
  }

  double key_bytes() const {
    return static_cast<double>((part_.shape.head_dim + part_.shape.value_dim) *
                               ElementBytes(part_.shape.element_type));
  }
  double budget_bytes() const { return policy_.amount * key_bytes(); }
  // What a scan of the one-bit codes may read. A budget is spent on it as far as heads have keys
  // that sums hide.
  double CodeBytes() const {
    if (policy_.goal != SelectionGoal::kTokenBudget) return kUnlimited;
    return part_.calibration.hidden_mass < kHiddenMassMin ? 0 : kBudgetForCodes * budget_bytes();
  }

  bool ReduceError() {
    const double allowed = error_asked() * error_asked();
    FallingThreshold doubt(descent_.ThresholdFor(descent_.SquaredError() / 4),
                           descent_.SquaredError(), kErrorAim * allowed);
    DescentThreshold threshold;
    while (doubt.value() > kDoubtMin && descent_.SquaredError() > allowed) {
      threshold.doubt_per_byte = doubt.value();
      if (DeadlineIsNear(deadline_) || !descent_.Refine(threshold, deadline_)) return false;
      descent_.UpdateTotals();
      doubt.Lower(descent_.SquaredError());
    }
    return true;
  }

  bool SpendBudget() {
    FallingThreshold doubt(descent_.ThresholdFor(descent_.SquaredError() / 2), 0,
                           kBudgetAim * budget_bytes());
    DescentThreshold threshold{.bytes_max = budget_bytes()};
    while (doubt.value() > kDoubtMin && descent_.SquaredError() > kSquaredErrorSeen) {
      if (DeadlineIsNear(deadline_)) return false;
      threshold.doubt_per_byte = doubt.value();
      const bool more = descent_.Refine(threshold, deadline_);
      descent_.UpdateTotals();
      if (!more) return !DeadlineIsNear(deadline_);
      doubt.Lower(static_cast<double>(descent_.bytes_read()));
    }
    return true;
  }

  // Calls f(logit, is exact) for every row of a coded cluster, for query g.
  template <typename F>
  void ForEachRow(size_t g, const F& f) const {
    for (const CodedCluster& coded : state_.coded) {
      const float* logits = state_.row_logits.data() + group_ * coded.offset + g * coded.rows;
      const uint8_t* exact = state_.row_exact.data() + coded.offset;
      for (size_t i = 0; i < coded.rows; ++i) f(logits[i], exact[i] != 0);
    }
  }

  // The logit from which rows would have to be exact to reach the share asked for; -infinity when
  // not enough rows are known.
  float FloorForCoverage(size_t g) {
    std::array<double, kBuckets> mass = {};
    ForEachRow(g, [&](float logit, bool exact) {
      if (exact) return;
      const float below = (state_.log_total[g] - logit) * kBucketsPerNat;
      const auto bucket = static_cast<size_t>(std::clamp(below, 0.0f, kBuckets - 1.0f));
      mass[bucket] += std::exp(double{logit} - state_.log_total[g]);
    });
    double share = state_.exact_mass[g];
    for (size_t b = 0; b < kBuckets; ++b) {
      share += mass[b];
      if (descent_.ConservativeShare(g, share) < policy_.amount * kCoverageReserve) continue;
      return state_.log_total[g] - static_cast<float>(b + 1) / kBucketsPerNat;
    }
    return -kInfinity;
  }

  // The logit of the k-th best row known; -infinity when fewer reach `complete`, the logit down to
  // which rows are known.
  float FloorForBest(size_t g, float complete) {
    logits_.clear();
    ForEachRow(g, [&](float logit, bool) {
      if (logit >= complete) logits_.push_back(logit);
    });
    const auto k = static_cast<size_t>(policy_.amount);
    if (logits_.size() < k) return -kInfinity;
    const auto kth = logits_.begin() + static_cast<std::ptrdiff_t>(k - 1);
    std::nth_element(logits_.begin(), kth, logits_.end(), std::greater<float>());
    return *kth;
  }

  // Reads codes down to a falling logit until the rows known are enough, then those rows.
  bool ReadBestRows() {
    const bool by_share = policy_.goal == SelectionGoal::kCoverage;
    DescentThreshold reach, rows;
    rows.row_logit.assign(group_, kInfinity);
    rows.row_deviations = by_share ? 0.0f : kCodeDeviations;
    for (float drop = kFirstDrop; true; drop += kDropStep) {
      const bool everything = drop > kDropMax;
      if (everything && !by_share) {
        ReadBestKeys(static_cast<size_t>(policy_.amount), descent_);
        descent_.UpdateTotals();
        return true;
      }
      bool enough = true;
      reach.logit.assign(group_, kInfinity);
      for (size_t g = 0; g < group_; ++g) {
        reach.logit[g] = everything ? -kInfinity : state_.log_total[g] - drop;
      }
      if (DeadlineIsNear(deadline_) || !descent_.Refine(reach, deadline_)) return false;
      descent_.UpdateTotals();
      for (size_t g = 0; g < group_; ++g) {
        rows.row_logit[g] = by_share ? FloorForCoverage(g) : FloorForBest(g, reach.logit[g]);
        enough = enough && rows.row_logit[g] != -kInfinity;
      }
      if (!enough && !everything) continue;
      if (DeadlineIsNear(deadline_) || !descent_.Refine(rows, deadline_)) return false;
      descent_.UpdateTotals();
      if (everything || !by_share || CoverageIsMet()) return true;
    }
  }

  bool CoverageIsMet() const {
    return *std::min_element(state_.exact_share.begin(), state_.exact_share.end()) >=
           policy_.amount;
  }

  bool ReadRange() {
    const SelectionPolicy best_key{SelectionGoal::kTopK, 1};
    if (!Selector(best_key, part_, deadline_, descent_).ReadBestRows()) return false;
    DescentThreshold threshold{.row_deviations = kCodeDeviations};
    threshold.logit.assign(group_, kInfinity);
    while (true) {
      bool changed = false;
      for (size_t g = 0; g < group_; ++g) {
        float best = -kInfinity;
        ForEachRow(g, [&](float logit, bool exact) {
          if (exact) best = std::max(best, logit);
        });
        const float floor = best - static_cast<float>(policy_.amount);
        changed = changed || threshold.logit[g] == kInfinity || floor > threshold.logit[g];
        threshold.logit[g] = floor;
      }
      if (!changed) return true;
      threshold.row_logit = threshold.logit;
      if (DeadlineIsNear(deadline_) || !descent_.Refine(threshold, deadline_)) return false;
      descent_.UpdateTotals();
    }
  }

  const SelectionPolicy policy_;
  const IndexedPart& part_;
  const absl::Time deadline_;
  Descent& descent_;
  DescentState& state_;
  const size_t group_;
  std::vector<float> logits_;
};

}  // namespace

void LookForHiddenKeys(const SelectionPolicy& policy, const IndexedPart& part, Descent& descent) {
  Selector(policy, part, absl::InfiniteFuture(), descent).LookForHiddenKeys();
}

bool ReadUntilMet(const SelectionPolicy& policy, const IndexedPart& part, absl::Time deadline,
                  Descent& descent) {
  return Selector(policy, part, deadline, descent).Run();
}

}  // namespace attic
