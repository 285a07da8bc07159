// Indexed against exact attention over one head read from files: processor time of one thread,
// bytes read, output error, and what coverage promises against what it is.
//   head_bench FOLDER HEAD GROUP [logit scale] [repeats]
// FOLDER is as LoadHead() reads it.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <memory>
#include <numeric>
#include <vector>

#include "base/check.h"
#include "tests/bench/head_data.h"

namespace attic {
namespace {

class HeadBench {
 public:
  explicit HeadBench(HeadData data) : data_(std::move(data)) {
    const MemoryUse use = data_.index->memory_use();
    const auto percent = [&](uint64_t bytes) { return 100.0 * bytes / use.vectors_bytes; };
    std::printf(
        "%lld tokens, built in %.1f s; over keys and values: sums %.1f%%, codes %.1f%%, "
        "graph %.1f%%\n",
        static_cast<long long>(data_.index->token_count()), data_.build_seconds,
        percent(use.summaries_bytes), percent(use.codes_bytes), percent(use.graph_bytes));
  }

  void Measure(size_t repeats) {
    const auto snapshot = data_.index->Snapshot();
    const SearchScratchPtr scratch = MakeSearchScratch();
    const HeadShape& shape = data_.shape;
    const size_t count = data_.question_count();
    std::vector<double> exact_ms, cold_ms, indexed_ms, error, promised, megabytes, log_error;
    size_t broken = 0;
    for (size_t i = 0; i < count; ++i) {
      const std::span<const float> query = data_.question(i);
      HeadAnswer exact, indexed;
      double start = ThreadMilliseconds();
      ATTIC_CHECK(
          snapshot->Attend({.queries = query, .mode = AttendMode::kExact}, *scratch, exact).ok());
      exact_ms.push_back(ThreadMilliseconds() - start);
      for (size_t r = 0; r < repeats; ++r) {
        start = ThreadMilliseconds();
        ATTIC_CHECK(snapshot->Attend({.queries = query}, *scratch, indexed).ok());
        (r == 0 ? cold_ms : indexed_ms).push_back(ThreadMilliseconds() - start);
      }
      for (size_t g = 0; g < shape.group; ++g) {
        const size_t at = g * shape.value_dim;
        error.push_back(
            RelativeError(indexed.output.data() + at, exact.output.data() + at, shape.value_dim));
        const double log_difference = double{indexed.log_sum_exp[g]} - exact.log_sum_exp[g];
        log_error.push_back(std::abs(log_difference));
        const double covered = indexed.coverage[g] * std::exp(log_difference);
        promised.push_back(indexed.coverage[g] - covered);
        broken += indexed.coverage[g] - covered > 0.02;
        if (error.back() > 0.05 && std::getenv("HEAD_BENCH_VERBOSE") != nullptr) {
          std::printf("  query %zu head %zu: error %.4f coverage %.4f lse %.3f exact %.3f\n", i, g,
                      error.back(), indexed.coverage[g], indexed.log_sum_exp[g],
                      exact.log_sum_exp[g]);
        }
      }
      megabytes.push_back(static_cast<double>(indexed.read.bytes_read) / 1e6);
    }
    std::vector<double> steady_ms;
    for (size_t r = 0; r < repeats; ++r) {
      for (size_t i = 0; i < count; ++i) {
        const std::span<const float> query = data_.question(i);
        HeadAnswer answer;
        const double start = ThreadMilliseconds();
        ATTIC_CHECK(snapshot->Attend({.queries = query}, *scratch, answer).ok());
        steady_ms.push_back(ThreadMilliseconds() - start);
      }
    }
    std::printf("  exact %.3f ms, indexed %.3f ms (%.3f ms again): ratio %.1f, %.2f MB read\n",
                Quantile(exact_ms, 0.5), Quantile(cold_ms, 0.5), Quantile(indexed_ms, 0.5),
                Quantile(exact_ms, 0.5) / Quantile(cold_ms, 0.5), Quantile(megabytes, 0.5));
    std::printf("  indexed: 10%% %.3f ms, 90%% %.3f ms, worst %.3f ms\n", Quantile(cold_ms, 0.1),
                Quantile(cold_ms, 0.9), Quantile(cold_ms, 1.0));
    std::printf("  one query after the other: mean %.3f ms, median %.3f ms, 90%% %.3f ms\n",
                std::accumulate(steady_ms.begin(), steady_ms.end(), 0.0) /
                    static_cast<double>(std::max<size_t>(1, steady_ms.size())),
                Quantile(steady_ms, 0.5), Quantile(steady_ms, 0.9));
    std::printf(
        "  output error: median %.5f  90%% %.5f  99%% %.5f  worst %.5f   log-sum-exp %.4f\n",
        Quantile(error, 0.5), Quantile(error, 0.9), Quantile(error, 0.99), Quantile(error, 1.0),
        Quantile(log_error, 1.0));
    std::printf("  coverage above the true one by more than 0.02: %zu of %zu, at worst %.4f\n",
                broken, error.size(), Quantile(promised, 1.0));
  }

 private:
  const HeadData data_;
};

}  // namespace
}  // namespace attic

int main(int argc, char** argv) {
  if (argc < 4) {
    std::fprintf(stderr, "usage: head_bench FOLDER HEAD GROUP [logit scale] [repeats]\n");
    return 2;
  }
  const auto group = static_cast<uint32_t>(std::strtoul(argv[3], nullptr, 10));
  const float logit_scale = argc > 4 ? std::strtof(argv[4], nullptr) : 0.0f;
  auto head = attic::LoadHead(argv[1], argv[2], group, logit_scale,
                              std::numeric_limits<size_t>::max(), attic::IndexOptions());
  if (!head.ok()) {
    std::fprintf(stderr, "head_bench: %s\n", head.status().ToString().c_str());
    return 1;
  }
  attic::HeadBench(*std::move(head)).Measure(argc > 5 ? std::strtoul(argv[5], nullptr, 10) : 3);
  return 0;
}
