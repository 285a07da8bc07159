// Indexed against exact attention over one head read from files: processor time of one thread,
// bytes read, output error, and what coverage promises against what it is.
//   head_bench FOLDER HEAD GROUP [logit scale] [repeats]
// FOLDER is as decoder_vectors writes it.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "client/cli/bench/npy_file.h"
#include "server/index/head_index.h"

namespace attic {
namespace {

double Milliseconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return 1e3 * static_cast<double>(now.tv_sec) + 1e-6 * static_cast<double>(now.tv_nsec);
}

double Quantile(std::vector<double> x, double share) {
  if (x.empty()) return 0;
  std::sort(x.begin(), x.end());
  return x[std::min(x.size() - 1, static_cast<size_t>(share * static_cast<double>(x.size())))];
}

double RelativeError(const float* a, const float* exact, size_t n) {
  double difference = 0, length = 1e-30;
  for (size_t i = 0; i < n; ++i) {
    difference += (double{a[i]} - exact[i]) * (double{a[i]} - exact[i]);
    length += double{exact[i]} * exact[i];
  }
  return std::sqrt(difference / length);
}

std::vector<std::byte> ToBFloat16(const cli::NpyMatrix& matrix) {
  const VectorsView view = matrix.view();
  std::vector<float> wide(view.count * view.dim);
  ToFloat32(view.data, view.type, wide);
  std::vector<std::byte> bytes(wide.size() * 2);
  FromFloat32(wide, ElementType::kBFloat16, bytes.data());
  return bytes;
}

class HeadBench {
 public:
  absl::Status Load(const std::string& folder, const std::string& head, uint32_t group,
                    float logit_scale) {
    const auto read = [&](const char* name) {
      return cli::ReadNpyMatrix(absl::StrCat(folder, "/", name, "_", head, ".npy"));
    };
    ATTIC_ASSIGN_OR_RETURN(const cli::NpyMatrix keys, read("keys"));
    ATTIC_ASSIGN_OR_RETURN(const cli::NpyMatrix values, read("values"));
    ATTIC_ASSIGN_OR_RETURN(const cli::NpyMatrix training, read("training"));
    ATTIC_ASSIGN_OR_RETURN(const cli::NpyMatrix questions, read("questions"));
    shape_.head_dim = static_cast<uint32_t>(keys.header.columns);
    shape_.value_dim = static_cast<uint32_t>(values.header.columns);
    shape_.group = group;
    shape_.logit_scale =
        logit_scale > 0 ? logit_scale : 1.0f / std::sqrt(static_cast<float>(shape_.head_dim));
    const VectorsView q = questions.view();
    queries_.resize(q.count / group * group * q.dim);
    ToFloat32(q.data, q.type, queries_);
    index_ = HeadIndex::Create(shape_, IndexOptions());
    std::vector<float> sample(training.header.rows * training.header.columns);
    ToFloat32(training.data.data(), training.header.type, sample);
    index_->AddTrainingQueries(sample);
    const std::vector<std::byte> k = ToBFloat16(keys), v = ToBFloat16(values);
    constexpr size_t kBatch = 8192;
    const VectorsView key_rows{k.data(), ElementType::kBFloat16, keys.header.rows, shape_.head_dim};
    const VectorsView value_rows{v.data(), ElementType::kBFloat16, keys.header.rows,
                                 shape_.value_dim};
    for (size_t row = 0; row < key_rows.count; row += kBatch) {
      const size_t count = std::min(kBatch, key_rows.count - row);
      index_->Append(key_rows.rows(row, count), value_rows.rows(row, count));
    }
    return Build();
  }

  void Measure(size_t repeats) {
    const auto snapshot = index_->Snapshot();
    const SearchScratchPtr scratch = MakeSearchScratch();
    const size_t size = size_t{shape_.group} * shape_.head_dim;
    const size_t count = queries_.size() / size;
    std::vector<double> exact_ms, cold_ms, indexed_ms, error, promised, megabytes, log_error;
    size_t broken = 0;
    for (size_t i = 0; i < count; ++i) {
      const std::span<const float> query(queries_.data() + i * size, size);
      HeadAnswer exact, indexed;
      double start = Milliseconds();
      snapshot->Attend({.queries = query, .mode = AttendMode::kExact}, *scratch, exact);
      exact_ms.push_back(Milliseconds() - start);
      for (size_t r = 0; r < repeats; ++r) {
        start = Milliseconds();
        snapshot->Attend({.queries = query}, *scratch, indexed);
        (r == 0 ? cold_ms : indexed_ms).push_back(Milliseconds() - start);
      }
      for (size_t g = 0; g < shape_.group; ++g) {
        const size_t at = g * shape_.value_dim;
        error.push_back(
            RelativeError(indexed.output.data() + at, exact.output.data() + at, shape_.value_dim));
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
        const std::span<const float> query(queries_.data() + i * size, size);
        HeadAnswer answer;
        const double start = Milliseconds();
        snapshot->Attend({.queries = query}, *scratch, answer);
        steady_ms.push_back(Milliseconds() - start);
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
  absl::Status Build() {
    const double start = Milliseconds();
    bool built = true;
    while (built) {
      ATTIC_ASSIGN_OR_RETURN(built, index_->BuildNext());
    }
    const MemoryUse use = index_->memory_use();
    const auto percent = [&](uint64_t bytes) { return 100.0 * bytes / use.vectors_bytes; };
    std::printf(
        "%lld tokens, built in %.1f s; over keys and values: sums %.1f%%, codes %.1f%%, "
        "graph %.1f%%\n",
        static_cast<long long>(index_->token_count()), (Milliseconds() - start) / 1e3,
        percent(use.summaries_bytes), percent(use.codes_bytes), percent(use.graph_bytes));
    return absl::OkStatus();
  }

  HeadShape shape_;
  std::vector<float> queries_;  // (n, group, head_dim)
  std::unique_ptr<HeadIndex> index_;
};

}  // namespace
}  // namespace attic

int main(int argc, char** argv) {
  if (argc < 4) {
    std::fprintf(stderr, "usage: head_bench FOLDER HEAD GROUP [logit scale] [repeats]\n");
    return 2;
  }
  attic::HeadBench bench;
  const float logit_scale = argc > 4 ? std::strtof(argv[4], nullptr) : 0.0f;
  const absl::Status loaded = bench.Load(
      argv[1], argv[2], static_cast<uint32_t>(std::strtoul(argv[3], nullptr, 10)), logit_scale);
  if (!loaded.ok()) {
    std::fprintf(stderr, "head_bench: %s\n", loaded.ToString().c_str());
    return 1;
  }
  bench.Measure(argc > 5 ? std::strtoul(argv[5], nullptr, 10) : 3);
  return 0;
}
