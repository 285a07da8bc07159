// Exact against indexed attention over one large head: times, bytes read, error, needles found and
// the cost of building. One thread.
//   index_bench [tokens] [group] [queries] [query length]
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <memory>
#include <vector>

#include "base/check.h"
#include "server/index/head_index.h"
#include "tests/unit/index/synthetic_head.h"

namespace attic {
namespace {

// Processor time of this thread, so that other work on the machine disturbs less.
double Seconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

struct Spread {
  double median, low, high;
};

Spread Summarize(std::vector<double> x) {
  std::sort(x.begin(), x.end());
  return {x[x.size() / 2], x[x.size() / 10], x[x.size() * 9 / 10]};
}

void Print(const char* name, const std::vector<double>& x) {
  const Spread s = Summarize(x);
  std::printf("  %-28s median %10.4f   (10%%: %.4f, 90%%: %.4f)\n", name, s.median, s.low, s.high);
}

double RelativeError(const float* a, const float* exact, size_t n) {
  double difference = 0, length = 1e-30;
  for (size_t i = 0; i < n; ++i) {
    difference += (a[i] - exact[i]) * (a[i] - exact[i]);
    length += exact[i] * exact[i];
  }
  return std::sqrt(difference / length);
}

struct Results {
  std::vector<double> exact_ms, indexed_ms, error, log_error, coverage, megabytes, exact_share,
      clusters, super_clusters, visits;
};

class Bench {
 public:
  Bench(size_t tokens, size_t group, double query_length) : group_(group) {
    options_.query_length = query_length;
    head_ = std::make_unique<SyntheticHead>(options_);
    HeadShape shape;
    shape.head_dim = static_cast<uint32_t>(options_.head_dim);
    shape.value_dim = static_cast<uint32_t>(options_.value_dim);
    shape.group = static_cast<uint32_t>(group);
    shape.logit_scale = head_->logit_scale();
    index_ = HeadIndex::Create(shape, IndexOptions());
    Fill(tokens);
    Build(tokens);
    scratch_ = MakeSearchScratch();
  }

  void Queries(size_t count, bool needles) {
    Results results;
    size_t found = 0;
    const auto snapshot = index_->Snapshot();
    for (size_t i = 0; i < count; ++i) {
      std::vector<float> queries;
      for (size_t g = 0; g < group_; ++g) {
        const std::vector<float> query =
            needles ? needle_queries_[(i * group_ + g) % needle_queries_.size()] : head_->Query();
        queries.insert(queries.end(), query.begin(), query.end());
      }
      HeadAnswer exact, indexed;
      Timed(*snapshot, queries, AttendMode::kExact, results.exact_ms, exact);
      Timed(*snapshot, queries, AttendMode::kIndexed, results.indexed_ms, indexed);
      const size_t dim = options_.value_dim;
      for (size_t g = 0; g < group_; ++g) {
        const double error =
            RelativeError(indexed.output.data() + g * dim, exact.output.data() + g * dim, dim);
        results.error.push_back(error);
        found += error < 0.2;
        results.log_error.push_back(indexed.log_sum_exp[g] - exact.log_sum_exp[g]);
        results.coverage.push_back(indexed.coverage[g]);
      }
      results.megabytes.push_back(indexed.read.bytes_read / 1e6);
      results.exact_share.push_back(100.0 * indexed.read.exact_tokens / indexed.read.tokens);
      results.clusters.push_back(indexed.read.estimated_clusters);
      results.super_clusters.push_back(indexed.read.estimated_super_clusters);
      results.visits.push_back(indexed.read.graph_visits);
    }
    std::printf("%s queries, group %zu (times are processor time of one thread):\n",
                needles ? "needle" : "topic", group_);
    if (needles) std::printf("  needles answered: %zu of %zu\n", found, count * group_);
    Print("exact, ms", results.exact_ms);
    Print("indexed, ms", results.indexed_ms);
    Print("relative error of output", results.error);
    Print("error of log_sum_exp", results.log_error);
    Print("coverage", results.coverage);
    Print("megabytes read", results.megabytes);
    Print("tokens exact, %", results.exact_share);
    Print("clusters estimated", results.clusters);
    Print("super-clusters estimated", results.super_clusters);
    Print("graph visits", results.visits);
  }

 private:
  void Fill(size_t tokens) {
    constexpr size_t kBatch = 8192;
    constexpr size_t kNeedles = 256;
    for (size_t done = 0; done < tokens; done += kBatch) {
      std::vector<float> keys, values;
      head_->AppendTokens(kBatch, keys, values);
      for (size_t n = 0; n < kNeedles * kBatch / tokens; ++n) {
        std::vector<float> key, query;
        head_->Needle(key, query);
        const size_t row = head_->random()() % kBatch;
        std::copy(key.begin(), key.end(), keys.begin() + row * options_.head_dim);
        needle_queries_.push_back(query);
      }
      const ElementType type = ElementType::kBFloat16;
      const std::vector<std::byte> k = Narrow(keys, type), v = Narrow(values, type);
      index_->Append({k.data(), type, kBatch, options_.head_dim},
                     {v.data(), type, kBatch, options_.value_dim});
    }
    for (int i = 0; i < 4096; ++i) index_->AddTrainingQueries(head_->Query());
  }

  void Build(size_t tokens) {
    const double begin = Seconds();
    while (index_->BuildNext().value()) {
    }
    const double seconds = Seconds() - begin;
    const MemoryUse use = index_->memory_use();
    std::printf("%zu tokens: built in %.1f s (%.1f s per million tokens)\n", tokens, seconds,
                seconds * 1e6 / tokens);
    std::printf("  over raw keys and values: summaries %.1f%%, codes %.1f%%, graph %.1f%%\n",
                100.0 * use.summaries_bytes / use.vectors_bytes,
                100.0 * use.codes_bytes / use.vectors_bytes,
                100.0 * use.graph_bytes / use.vectors_bytes);
  }

  void Timed(const HeadSnapshot& snapshot, const std::vector<float>& queries, AttendMode mode,
             std::vector<double>& ms, HeadAnswer& answer) {
    const double begin = Seconds();
    ATTIC_CHECK(snapshot.Attend({.queries = queries, .mode = mode}, *scratch_, answer).ok());
    ms.push_back(1e3 * (Seconds() - begin));
  }

  SyntheticOptions options_;
  const size_t group_;
  std::unique_ptr<SyntheticHead> head_;
  std::unique_ptr<HeadIndex> index_;
  SearchScratchPtr scratch_;
  std::vector<std::vector<float>> needle_queries_;
};

}  // namespace
}  // namespace attic

int main(int argc, char** argv) {
  const size_t tokens = argc > 1 ? std::strtoul(argv[1], nullptr, 10) : 1048576;
  const size_t group = argc > 2 ? std::strtoul(argv[2], nullptr, 10) : 4;
  const size_t queries = argc > 3 ? std::strtoul(argv[3], nullptr, 10) : 40;
  const double query_length = argc > 4 ? std::strtod(argv[4], nullptr) : 17;
  attic::Bench bench(tokens, group, query_length);
  bench.Queries(queries, false);
  bench.Queries(queries, true);
  return 0;
}
