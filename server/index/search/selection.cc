#include "server/index/search/selection.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "server/index/search/deadline.h"

namespace attic {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
// Thresholds fall by these factors from pass to pass; after so many passes everything is read.
constexpr float kDoubtFactor = 0.25f;
constexpr float kBudgetFactor = 0.5f;
constexpr int kPassesMax = 48;
// A key that holds more than this share of the mass must not stay hidden, whatever is asked for...
constexpr float kHiddenShare = 1e-3f;
// ...unless the errors asked for are larger.
constexpr float kHiddenShareOfError = 0.02f;
// Logits: where a search for the best keys begins, below the largest, and how it goes on.
constexpr float kFirstDrop = 2.0f;
constexpr float kDropFactor = 1.6f;
constexpr float kDropMax = 200.0f;

class Selector {
 public:
  Selector(const SelectionPolicy& policy, const IndexedPart& part, absl::Time deadline,
           const ReadStatistics& read, Descent& descent)
      : policy_(policy),
        part_(part),
        deadline_(deadline),
        read_(read),
        descent_(descent),
        state_(descent.state()),
        group_(state_.log_total.size()) {}

  bool Run() {
    if (policy_.goal != SelectionGoal::kTokenBudget || BudgetAllowsCodes()) {
      descent_.FindHiddenKeys(std::log(HiddenShare()));
      descent_.UpdateTotals();
    }
    switch (policy_.goal) {
      case SelectionGoal::kTokenBudget:
        return SpendBudget();
      case SelectionGoal::kTopK:
      case SelectionGoal::kCoverage:
        return LowerLogits();
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
  // A scan of all codes may take no more than a third of what is allowed.
  bool BudgetAllowsCodes() const {
    const double tokens = descent_.exact_bytes() / key_bytes();
    const auto row_bytes = static_cast<double>(part_.rotation->code_dim() / 8 + 1);
    return 3 * tokens * row_bytes <= budget_bytes();
  }

  double Doubt() const { return *std::max_element(state_.doubt.begin(), state_.doubt.end()); }

  bool ReduceError() {
    const double factor = part_.terms->error_factor;
    const double allowed = error_asked() * error_asked() / (factor * factor);
    DescentThreshold threshold{.doubt_per_byte = descent_.ThresholdFor(allowed / 2)};
    for (int pass = 0; pass < kPassesMax && Doubt() > allowed; ++pass) {
      if (DeadlineIsNear(deadline_) || !descent_.Refine(threshold, deadline_)) return false;
      descent_.UpdateTotals();
      threshold.doubt_per_byte *= kDoubtFactor;
    }
    return true;
  }

  bool SpendBudget() {
    DescentThreshold threshold{.doubt_per_byte = descent_.ThresholdFor(Doubt() / 2),
                               .bytes_max = budget_bytes()};
    for (int pass = 0; pass < kPassesMax && Doubt() > 0; ++pass) {
      if (DeadlineIsNear(deadline_)) return false;
      const bool more = descent_.Refine(threshold, deadline_);
      descent_.UpdateTotals();
      if (!more) return !DeadlineIsNear(deadline_);
      threshold.doubt_per_byte *= kBudgetFactor;
    }
    return true;
  }

  // Exact rows of query g whose logit reaches `floor`.
  size_t ExactRowsAbove(size_t g, float floor) const {
    size_t count = 0;
    for (const CodedCluster& coded : state_.coded) {
      const float* logits = state_.row_logits.data() + group_ * coded.offset + g * coded.rows;
      for (size_t i = 0; i < coded.rows; ++i) {
        count += state_.row_exact[coded.offset + i] != 0 && logits[i] >= floor;
      }
    }
    return count;
  }

  float BestLogit(size_t g) const {
    float best = -kInfinity;
    for (const CodedCluster& coded : state_.coded) {
      const float* logits = state_.row_logits.data() + group_ * coded.offset + g * coded.rows;
      for (size_t i = 0; i < coded.rows; ++i) {
        if (state_.row_exact[coded.offset + i] != 0) best = std::max(best, logits[i]);
      }
    }
    return best;
  }

  bool Met(size_t g, float floor) const {
    if (policy_.goal == SelectionGoal::kCoverage) return state_.exact_share[g] >= policy_.amount;
    return static_cast<double>(ExactRowsAbove(g, floor)) >= policy_.amount;
  }

  // Keys above a falling floor are read until there are enough of them.
  bool LowerLogits() {
    DescentThreshold threshold;
    threshold.logit.assign(group_, kInfinity);
    float drop = kFirstDrop;
    while (true) {
      bool met = true;
      for (size_t g = 0; g < group_; ++g) {
        const float floor = drop > kDropMax ? -kInfinity : state_.log_total[g] - drop;
        const bool enough = Met(g, threshold.logit[g]);
        if (!enough) threshold.logit[g] = floor;
        met = met && enough;
      }
      if (met) return true;
      if (DeadlineIsNear(deadline_) || !descent_.Refine(threshold, deadline_)) return false;
      descent_.UpdateTotals();
      if (drop > kDropMax) return true;  // everything is read
      drop *= kDropFactor;
    }
  }

  bool ReadRange() {
    const SelectionPolicy best_key{SelectionGoal::kTopK, 1};
    if (!Selector(best_key, part_, deadline_, read_, descent_).LowerLogits()) return false;
    DescentThreshold threshold;
    threshold.logit.assign(group_, kInfinity);
    while (true) {
      bool lower = false;
      for (size_t g = 0; g < group_; ++g) {
        const float floor = BestLogit(g) - static_cast<float>(policy_.amount);
        lower = lower || threshold.logit[g] == kInfinity || floor > threshold.logit[g];
        threshold.logit[g] = floor;
      }
      if (!lower) return true;
      if (DeadlineIsNear(deadline_) || !descent_.Refine(threshold, deadline_)) return false;
      descent_.UpdateTotals();
    }
  }

  const SelectionPolicy policy_;
  const IndexedPart& part_;
  const absl::Time deadline_;
  const ReadStatistics& read_;
  Descent& descent_;
  DescentState& state_;
  const size_t group_;
};

}  // namespace

void ReadBestKeys(size_t k, Descent& descent) {
  descent.FindBestKeys(k);
  const DescentState& state = descent.state();
  const size_t group = state.log_total.size();
  DescentThreshold threshold;
  std::vector<float> logits;
  for (size_t g = 0; g < group; ++g) {
    logits.clear();
    for (const CodedCluster& coded : state.coded) {
      const float* row = state.row_logits.data() + group * coded.offset + g * coded.rows;
      for (size_t i = 0; i < coded.rows; ++i) {
        if (state.row_exact[coded.offset + i] != 0) logits.push_back(row[i]);
      }
    }
    float floor = -kInfinity;
    if (k > 0 && logits.size() >= k) {
      std::nth_element(logits.begin(), logits.begin() + static_cast<std::ptrdiff_t>(k - 1),
                       logits.end(), std::greater<float>());
      floor = logits[k - 1];
    }
    threshold.logit.push_back(floor);
  }
  descent.Refine(threshold, absl::InfiniteFuture());
}

bool ReadUntilMet(const SelectionPolicy& policy, const IndexedPart& part, absl::Time deadline,
                  const ReadStatistics& read, Descent& descent) {
  return Selector(policy, part, deadline, read, descent).Run();
}

}  // namespace attic
