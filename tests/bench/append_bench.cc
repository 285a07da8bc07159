// What appends cost searches: the latency of attention on one thread, at rest and while another
// thread appends to the same head and builds its segments. Prints a line of JSON.
//   append_bench FOLDER HEAD GROUP [logit scale] [policy] [rounds]
// FOLDER is as LoadHead() reads it. The policy is "default", or such as "max_error=0.1".
//
// A round begins with a fork of the head that holds the first three quarters of its keys, and
// measures four times: at rest; at rest with a full tail, which is scanned in every answer; while
// the other keys are appended and built; and at rest again. A fork measures the errors of its
// estimates anew with the first segment of its own, so that one is built before.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/check.h"
#include "tests/bench/head_data.h"

namespace attic {
namespace {

constexpr double kRestSeconds = 0.5;  // of one measurement at rest
constexpr int64_t kBatchTokens = 1024;

double WallMilliseconds() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double, std::milli>(now).count();
}

double Sum(const std::vector<double>& x) { return std::accumulate(x.begin(), x.end(), 0.0); }

struct Latencies {
  std::vector<double> ms, processor_ms;  // by the clock, and of the searching thread

  void Add(const Latencies& other) {
    ms.insert(ms.end(), other.ms.begin(), other.ms.end());
    processor_ms.insert(processor_ms.end(), other.processor_ms.begin(), other.processor_ms.end());
  }
  // processor_share: of the time, the thread had a core. Much less than 1 says that there were more
  // threads than cores: other programs disturbed.
  nlohmann::json Summary() const {
    return {{"samples", ms.size()},
            {"p50_ms", Quantile(ms, 0.5)},
            {"p99_ms", Quantile(ms, 0.99)},
            {"processor_p99_ms", Quantile(processor_ms, 0.99)},
            {"processor_share", Sum(processor_ms) / Sum(ms)}};
  }
};

double Ratio(const Latencies& some, const Latencies& rest, double quantile) {
  return Quantile(some.ms, quantile) / Quantile(rest.ms, quantile);
}

class AppendBench {
 public:
  // `segment_tokens`: what `data` was built with.
  AppendBench(HeadData data, SelectionPolicy policy, int64_t segment_tokens)
      : data_(std::move(data)),
        policy_(policy),
        segment_tokens_(segment_tokens),
        kept_tokens_(data_.index->token_count() * 3 / 4 / segment_tokens * segment_tokens),
        scratch_(MakeSearchScratch()) {
    CopyRows();
  }

  void Run(size_t rounds) {
    for (size_t i = 0; i < rounds; ++i) Round();
    Print();
  }

 private:
  static constexpr ElementType kType = ElementType::kBFloat16;

  void CopyRows() {
    const auto snapshot = data_.index->Snapshot();
    const size_t key_bytes = data_.shape.head_dim * ElementBytes(kType);
    const size_t value_bytes = data_.shape.value_dim * ElementBytes(kType);
    const auto rows = static_cast<size_t>(snapshot->token_count() - kept_tokens_);
    keys_.resize(rows * key_bytes);
    values_.resize(rows * value_bytes);
    ATTIC_CHECK(
        snapshot->CopyRange({kept_tokens_, snapshot->token_count()}, keys_.data(), values_.data())
            .ok());
  }

  // Appends those of the kept rows that `head` lacks, up to `end`.
  void Append(int64_t end, HeadIndex& head) const {
    const int64_t begin = head.token_count();
    const auto first = static_cast<size_t>(begin - kept_tokens_);
    const auto count = static_cast<size_t>(end - begin);
    const size_t rows = first + count;
    head.Append(VectorsView{keys_.data(), kType, rows, data_.shape.head_dim}.rows(first, count),
                VectorsView{values_.data(), kType, rows, data_.shape.value_dim}.rows(first, count));
  }

  // One search of what `head` holds now.
  void Search(const HeadIndex& head, Latencies& latencies) {
    const double start = WallMilliseconds(), processor_start = ThreadMilliseconds();
    ATTIC_CHECK(head.Snapshot()
                    ->Attend({.queries = data_.question(next_question_), .selection = policy_},
                             *scratch_, answer_)
                    .ok());
    latencies.processor_ms.push_back(ThreadMilliseconds() - processor_start);
    latencies.ms.push_back(WallMilliseconds() - start);
    next_question_ = (next_question_ + 1) % data_.question_count();
  }

  Latencies SearchAtRest(const HeadIndex& head) {
    Latencies found;
    const double end = WallMilliseconds() + 1e3 * kRestSeconds;
    while (WallMilliseconds() < end) Search(head, found);
    return found;
  }

  // Searches until another thread has appended all rows and built what can be built.
  Latencies SearchBesideAppends(HeadIndex& head) {
    std::atomic<bool> done = false;
    std::thread appends([&] {
      const int64_t begin = head.token_count(), end = data_.index->token_count();
      const double start = WallMilliseconds();
      AppendAndBuild(end, head);
      append_seconds_ += (WallMilliseconds() - start) / 1e3;
      appended_ += end - begin;
      done = true;
    });
    Latencies found;
    while (!done) Search(head, found);
    appends.join();
    return found;
  }

  void AppendAndBuild(int64_t end, HeadIndex& head) const {
    while (head.token_count() < end) {
      Append(std::min(end, head.token_count() + kBatchTokens), head);
      while (head.BuildNext().value()) {
      }
    }
  }

  void Round() {
    const std::unique_ptr<HeadIndex> head = data_.index->Fork(kept_tokens_).value();
    AppendAndBuild(kept_tokens_ + segment_tokens_, *head);
    const Latencies before = SearchAtRest(*head);
    Append(kept_tokens_ + 2 * segment_tokens_ - 1, *head);
    const Latencies full_tail = SearchAtRest(*head);
    const Latencies beside = SearchBesideAppends(*head);
    const Latencies after = SearchAtRest(*head);
    Latencies rest = before;
    rest.Add(after);
    round_ratios_.push_back(Ratio(beside, rest, 0.99));
    rest_before_.Add(before);
    rest_after_.Add(after);
    rest_.Add(rest);
    full_tail_.Add(full_tail);
    beside_.Add(beside);
  }

  void Print() const {
    const nlohmann::json line{{"tokens", data_.index->token_count()},
                              {"tokens_before", kept_tokens_ + segment_tokens_},
                              {"policy", SelectionGoalName(policy_.goal)},
                              {"amount", policy_.amount},
                              {"rounds", round_ratios_.size()},
                              {"hardware_threads", std::thread::hardware_concurrency()},
                              {"rest", rest_.Summary()},
                              {"rest_before", rest_before_.Summary()},
                              {"rest_after", rest_after_.Summary()},
                              {"rest_full_tail", full_tail_.Summary()},
                              {"beside", beside_.Summary()},
                              {"ratio_p50", Ratio(beside_, rest_, 0.5)},
                              {"ratio_p99", Ratio(beside_, rest_, 0.99)},
                              {"ratio_p99_processor", Quantile(beside_.processor_ms, 0.99) /
                                                          Quantile(rest_.processor_ms, 0.99)},
                              {"ratio_p99_full_tail", Ratio(beside_, full_tail_, 0.99)},
                              {"ratio_p99_rounds", round_ratios_},
                              {"appended_tokens", appended_},
                              {"appended_tokens_per_second", appended_ / append_seconds_}};
    std::printf("%s\n", line.dump().c_str());
  }

  const HeadData data_;
  const SelectionPolicy policy_;
  const int64_t segment_tokens_;
  const int64_t kept_tokens_;  // of a fork, all in segments
  const SearchScratchPtr scratch_;
  std::vector<std::byte> keys_, values_;  // from kept_tokens_ on
  size_t next_question_ = 0;
  HeadAnswer answer_;
  Latencies rest_, rest_before_, rest_after_, full_tail_, beside_;
  std::vector<double> round_ratios_;  // p99 beside appends over p99 at rest
  int64_t appended_ = 0;
  double append_seconds_ = 0;
};

}  // namespace
}  // namespace attic

int main(int argc, char** argv) {
  const std::optional<attic::SelectionPolicy> policy =
      attic::ParsePolicy(argc > 5 ? argv[5] : "default");
  if (argc < 4 || !policy) {
    std::fprintf(stderr, "usage: append_bench FOLDER HEAD GROUP [logit scale] [policy] [rounds]\n");
    return 2;
  }
  const auto group = static_cast<uint32_t>(std::strtoul(argv[3], nullptr, 10));
  const float scale = argc > 4 ? std::strtof(argv[4], nullptr) : 0.0f;
  const attic::IndexOptions options;
  auto head = attic::LoadHead(argv[1], argv[2], group, scale, 128, options);
  if (!head.ok()) {
    std::fprintf(stderr, "append_bench: %s\n", head.status().ToString().c_str());
    return 1;
  }
  if (head->index->token_count() < 12 * options.segment_tokens || head->question_count() == 0) {
    std::fprintf(stderr, "append_bench: twelve segments of keys and a question are needed\n");
    return 1;
  }
  attic::AppendBench(*std::move(head), *policy, options.segment_tokens)
      .Run(argc > 6 ? std::strtoul(argv[6], nullptr, 10) : 5);
  return 0;
}
