// Needles among near-equal distractors: how many of them each policy finds in a made-up head, for
// how many bytes and how much time, against an exact scan. Prints a line of JSON.
//   needle_bench [tokens] [head_dim] [needles] [training share] [distractors] [seed] [walk]
// With "walk", heads are never scanned because that is faster (IndexOptions::exact_when_better).
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>
#include <vector>

#include "attention/vector_kernels.h"
#include "base/check.h"
#include "tests/bench/head_data.h"
#include "tests/bench/needle_head.h"

namespace attic {
namespace {

constexpr double kCloseError = 0.05;
constexpr size_t kTrainingGroups = 2048;

double Mean(const std::vector<double>& x) {
  return std::accumulate(x.begin(), x.end(), 0.0) / static_cast<double>(x.size());
}

class NeedleBench {
 public:
  NeedleBench(const NeedleOptions& options, bool exact_when_better)
      : options_(options),
        exact_when_better_(exact_when_better),
        head_(options),
        scratch_(MakeSearchScratch()) {
    IndexOptions index_options;
    index_options.exact_when_better = exact_when_better;
    index_options.exact_scan_tokens_max = 0;  // short trials take the way of long texts
    index_ = HeadIndex::Create(head_.shape(), index_options);
    index_->AddTrainingQueries(head_.TrainingQueries(kTrainingGroups));
    head_.AppendTo(*index_);
    const double start = ThreadMilliseconds();
    while (index_->BuildNext().value()) {
    }
    build_seconds_ = (ThreadMilliseconds() - start) / 1e3;
    snapshot_ = index_->Snapshot();
  }

  void Run() {
    AskExactly();
    nlohmann::json policies = nlohmann::json::array();
    for (const SelectionPolicy& policy :
         {SelectionPolicy{}, SelectionPolicy{SelectionGoal::kMaxError, 0.05},
          SelectionPolicy{SelectionGoal::kCoverage, 0.9},
          SelectionPolicy{SelectionGoal::kTopK, 100}}) {
      policies.push_back(Ask(policy));
    }
    const nlohmann::json line{{"tokens", options_.tokens},
                              {"head_dim", options_.head_dim},
                              {"group", options_.group},
                              {"needles", options_.needles},
                              {"distractors", options_.distractors},
                              {"margin_nats", {NeedleHead::kMarginMin, NeedleHead::kMarginMax}},
                              {"training_share", options_.training_share},
                              {"exact_when_better", exact_when_better_},
                              {"seed", options_.seed},
                              {"asked", asked_},
                              {"needle_weight_min", Quantile(weights_, 0)},
                              {"needle_weight_median", Quantile(weights_, 0.5)},
                              {"needle_weight_max", Quantile(weights_, 1)},
                              {"build_seconds", build_seconds_},
                              {"exact_ms", exact_ms_},
                              {"policies", policies}};
    std::printf("%s\n", line.dump().c_str());
  }

 private:
  void AskExactly() {
    std::vector<double> ms;
    exact_.resize(options_.needles);
    for (size_t i = 0; i < options_.needles; ++i) {
      const double start = ThreadMilliseconds();
      ATTIC_CHECK(snapshot_
                      ->Attend({.queries = head_.question(i), .mode = AttendMode::kExact},
                               *scratch_, exact_[i])
                      .ok());
      ms.push_back(ThreadMilliseconds() - start);
      for (size_t g = 0; g < options_.group; ++g) weights_.push_back(NeedleWeight(i, g));
    }
    exact_ms_ = Quantile(ms, 0.5);
    for (const double weight : weights_) asked_ += weight > 0.5;
  }

  // Share of the softmax mass.
  double NeedleWeight(size_t needle, size_t query_head) const {
    const ElementType type = ElementType::kBFloat16;
    const size_t dim = options_.head_dim;
    std::vector<std::byte> bytes(2 * dim * ElementBytes(type));
    const int64_t position = head_.position(needle);
    ATTIC_CHECK(
        snapshot_->CopyVectors({&position, 1}, bytes.data(), bytes.data() + bytes.size() / 2).ok());
    std::vector<float> key(dim);
    ToFloat32(bytes.data(), type, key);
    const float* query = head_.question(needle).data() + query_head * dim;
    const double logit = head_.shape().logit_scale * Dot(query, key.data(), dim);
    return std::exp(logit - exact_[needle].log_sum_exp[query_head]);
  }

  // Only needles of more than half of the weight are asked for: of such a one, the exact rows hold
  // half of the weight if and only if it is among them.
  nlohmann::json Ask(const SelectionPolicy& policy) {
    std::vector<double> ms, bytes, errors;
    size_t attended = 0, close = 0, found = 0;
    const size_t dim = options_.head_dim;
    for (size_t i = 0; i < options_.needles; ++i) {
      HeadAnswer answer;
      const double start = ThreadMilliseconds();
      ATTIC_CHECK(
          snapshot_->Attend({.queries = head_.question(i), .selection = policy}, *scratch_, answer)
              .ok());
      ms.push_back(ThreadMilliseconds() - start);
      bytes.push_back(static_cast<double>(answer.read.bytes_read) /
                      static_cast<double>(exact_[i].read.bytes_read));
      for (size_t g = 0; g < options_.group; ++g) {
        if (weights_[i * options_.group + g] <= 0.5) continue;
        const double covered =
            answer.coverage[g] * std::exp(double{answer.log_sum_exp[g]} - exact_[i].log_sum_exp[g]);
        errors.push_back(
            RelativeError(answer.output.data() + g * dim, exact_[i].output.data() + g * dim, dim));
        attended += covered > 0.5;
        close += errors.back() < kCloseError;
        found += covered > 0.5 && errors.back() < kCloseError;
      }
    }
    const auto n = static_cast<double>(asked_);
    return {{"policy", SelectionGoalName(policy.goal)},
            {"amount", policy.amount},
            {"found", found},
            {"found_share", static_cast<double>(found) / n},
            {"attended_share", static_cast<double>(attended) / n},
            {"close_share", static_cast<double>(close) / n},
            {"error_median", Quantile(errors, 0.5)},
            {"error_p99", Quantile(errors, 0.99)},
            {"bytes_share", Mean(bytes)},
            {"bytes_share_worst", Quantile(bytes, 1)},
            {"milliseconds", Quantile(ms, 0.5)},
            {"exact_over_time", exact_ms_ / Quantile(ms, 0.5)}};
  }

  const NeedleOptions options_;
  const bool exact_when_better_;
  NeedleHead head_;
  const SearchScratchPtr scratch_;
  std::unique_ptr<HeadIndex> index_;
  std::shared_ptr<const HeadSnapshot> snapshot_;
  double build_seconds_ = 0, exact_ms_ = 0;
  std::vector<HeadAnswer> exact_;
  std::vector<double> weights_;  // of needles, (needles, group)
  size_t asked_ = 0;
};

}  // namespace
}  // namespace attic

int main(int argc, char** argv) {
  attic::NeedleOptions options;
  const auto read = [&](int place, size_t& option) {
    if (argc > place) option = std::strtoul(argv[place], nullptr, 10);
  };
  read(1, options.tokens);
  read(2, options.head_dim);
  read(3, options.needles);
  if (argc > 4) options.training_share = std::strtod(argv[4], nullptr);
  read(5, options.distractors);
  read(6, options.seed);
  const std::string walk = "walk";
  if (argc > 8 || (argc > 7 && walk != argv[7]) || options.head_dim < 16 || options.needles == 0 ||
      2 * options.needles * (1 + options.distractors) >= options.tokens) {
    std::fprintf(
        stderr,
        "usage: needle_bench [tokens] [head_dim] [needles] [training share] [distractors] "
        "[seed] [walk]\n"
        "head_dim of 16 or more, and twice the needles and distractors fewer than tokens\n");
    return 2;
  }
  attic::NeedleBench(options, argc <= 7).Run();
  return 0;
}
