// What accuracy costs: one head of a data set asked under many selection policies, against exact
// attention over all of it. Prints a line of JSON for each policy.
//   frontier_bench FOLDER HEAD GROUP [logit scale] [questions] [policy]
// FOLDER is as LoadHead() reads it.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/check.h"
#include "tests/bench/head_data.h"

namespace attic {
namespace {

struct Asked {
  const char* name;
  SelectionPolicy policy;
};

std::vector<Asked> Policies(double tokens) {
  std::vector<Asked> asked{{"default", {}}};
  for (const double share : {0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.17, 0.25}) {
    asked.push_back({"token_budget", {SelectionGoal::kTokenBudget, std::ceil(share * tokens)}});
  }
  for (const double error : {0.2, 0.1, 0.05, 0.02, 0.01}) {
    asked.push_back({"max_error", {SelectionGoal::kMaxError, error}});
  }
  for (const double share : {0.5, 0.9}) {
    asked.push_back({"coverage", {SelectionGoal::kCoverage, share}});
  }
  asked.push_back({"top_k", {SelectionGoal::kTopK, 100}});
  asked.push_back({"inner_product_range", {SelectionGoal::kInnerProductRange, 4}});
  return asked;
}

std::string Number(double x) {
  char text[32];
  std::snprintf(text, sizeof(text), "%g", x);
  return text;
}

double Mean(const std::vector<double>& x) {
  double sum = 0;
  for (const double element : x) sum += element;
  return x.empty() ? 0 : sum / static_cast<double>(x.size());
}

class FrontierBench {
 public:
  explicit FrontierBench(HeadData data)
      : data_(std::move(data)),
        snapshot_(data_.index->Snapshot()),
        scratch_(MakeSearchScratch()),
        exact_(data_.question_count()) {}

  // `only`: the policies to measure, as "max_error" or "max_error=0.05", or empty.
  void Run(const std::string& only) {
    std::vector<double> exact_ms;
    for (size_t i = 0; i < exact_.size(); ++i) {
      const double start = ThreadMilliseconds();
      ATTIC_CHECK(snapshot_
                      ->Attend({.queries = data_.question(i), .mode = AttendMode::kExact},
                               *scratch_, exact_[i])
                      .ok());
      exact_ms.push_back(ThreadMilliseconds() - start);
    }
    PrintHead(Quantile(exact_ms, 0.5));
    for (const Asked& asked : Policies(static_cast<double>(data_.index->token_count()))) {
      const std::string name = asked.name, precise = name + '=' + Number(asked.policy.amount);
      if (only.empty() || only == name || only == precise) Measure(asked);
    }
  }

 private:
  double vectors_bytes() const {
    const HeadShape& shape = data_.shape;
    return static_cast<double>(data_.index->token_count()) * (shape.head_dim + shape.value_dim) *
           static_cast<double>(ElementBytes(shape.element_type));
  }

  void PrintHead(double exact_ms) const {
    const MemoryUse use = data_.index->memory_use();
    const auto share = [&](uint64_t bytes) { return static_cast<double>(bytes) / vectors_bytes(); };
    const HeadPlan plan = data_.index->Plan();
    const nlohmann::json line{{"policy", "exact"},
                              {"scan_faster_below", plan.scan_faster_below},
                              {"least_error", plan.least_error},
                              {"coverage_max", plan.coverage_max},
                              {"hidden_mass", plan.hidden_mass},
                              {"tokens", data_.index->token_count()},
                              {"milliseconds", exact_ms},
                              {"build_seconds", data_.build_seconds},
                              {"summaries_share", share(use.summaries_bytes)},
                              {"codes_share", share(use.codes_bytes)},
                              {"graph_share", share(use.graph_bytes)}};
    std::printf("%s\n", line.dump().c_str());
  }

  void Measure(const Asked& asked) {
    std::vector<double> error, estimated, promised, covered, bytes, keys, milliseconds;
    size_t over_estimate = 0, over_coverage = 0, over_asked = 0;
    for (size_t i = 0; i < exact_.size(); ++i) {
      HeadAnswer answer;
      const double start = ThreadMilliseconds();
      ATTIC_CHECK(
          snapshot_
              ->Attend({.queries = data_.question(i), .selection = asked.policy}, *scratch_, answer)
              .ok());
      milliseconds.push_back(ThreadMilliseconds() - start);
      bytes.push_back(static_cast<double>(answer.read.bytes_read) / vectors_bytes());
      keys.push_back(static_cast<double>(answer.read.exact_tokens));
      for (size_t g = 0; g < data_.shape.group; ++g) {
        const size_t dim = data_.shape.value_dim;
        error.push_back(
            RelativeError(answer.output.data() + g * dim, exact_[i].output.data() + g * dim, dim));
        estimated.push_back(answer.error[g]);
        over_estimate += error.back() > answer.error[g] + 1e-5;
        over_asked +=
            asked.policy.goal == SelectionGoal::kMaxError && error.back() > asked.policy.amount;
        promised.push_back(answer.coverage[g]);
        covered.push_back(answer.coverage[g] *
                          std::exp(double{answer.log_sum_exp[g]} - exact_[i].log_sum_exp[g]));
        over_coverage += promised.back() > covered.back() + 0.02;
      }
    }
    const auto n = static_cast<double>(error.size());
    const nlohmann::json line{{"policy", asked.name},
                              {"amount", asked.policy.amount},
                              {"bytes_share", Mean(bytes)},
                              {"exact_keys", Mean(keys)},
                              {"milliseconds", Quantile(milliseconds, 0.5)},
                              {"error_median", Quantile(error, 0.5)},
                              {"error_mean", Mean(error)},
                              {"error_p90", Quantile(error, 0.9)},
                              {"error_p99", Quantile(error, 0.99)},
                              {"estimated_error_median", Quantile(estimated, 0.5)},
                              {"errors_above_estimate", over_estimate / n},
                              {"errors_above_asked", over_asked / n},
                              {"coverage_promised", Mean(promised)},
                              {"coverage_true", Mean(covered)},
                              {"coverage_true_p01", Quantile(covered, 0.01)},
                              {"coverage_above_true", over_coverage / n}};
    std::printf("%s\n", line.dump().c_str());
    std::fflush(stdout);
  }

  const HeadData data_;
  const std::shared_ptr<const HeadSnapshot> snapshot_;
  const SearchScratchPtr scratch_;
  std::vector<HeadAnswer> exact_;
};

}  // namespace
}  // namespace attic

int main(int argc, char** argv) {
  if (argc < 4) {
    std::fprintf(stderr,
                 "usage: frontier_bench FOLDER HEAD GROUP [logit scale] [questions] [policy]\n");
    return 2;
  }
  const auto group = static_cast<uint32_t>(std::strtoul(argv[3], nullptr, 10));
  const float scale = argc > 4 ? std::strtof(argv[4], nullptr) : 0.0f;
  const size_t questions = argc > 5 ? std::strtoul(argv[5], nullptr, 10) : 128;
  attic::IndexOptions options;
  options.exact_scan_tokens_max = 0;
  auto head = attic::LoadHead(argv[1], argv[2], group, scale, questions, options);
  if (!head.ok()) {
    std::fprintf(stderr, "frontier_bench: %s\n", head.status().ToString().c_str());
    return 1;
  }
  attic::FrontierBench(*std::move(head)).Run(argc > 6 ? argv[6] : "");
  return 0;
}
