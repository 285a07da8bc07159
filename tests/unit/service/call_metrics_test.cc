#include "server/service/call_metrics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

namespace attic {
namespace {

uint64_t Total(const std::vector<uint64_t>& counts) {
  return std::accumulate(counts.begin(), counts.end(), uint64_t{0});
}

TEST(HistogramTest, CountsAsOneByOne) {
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE(seed);
  std::mt19937_64 random(seed);
  const std::vector<double> bounds = {-1, 0, 0.25, 0.5, 3};
  for (int round = 0; round < 200; ++round) {
    std::vector<float> numbers(random() % 40);
    // Some of them are bounds.
    for (float& x : numbers) x = static_cast<float>(static_cast<int>(random() % 40)) / 8 - 1.5f;
    Histogram one_by_one(bounds);
    Histogram together(bounds);
    std::vector<uint64_t> expected(bounds.size() + 1);
    for (const float x : numbers) {
      size_t bucket = 0;
      while (bucket < bounds.size() && x > bounds[bucket]) ++bucket;
      ++expected[bucket];
      one_by_one.Observe(static_cast<double>(x));
    }
    together.Observe(numbers);
    for (const HistogramCounts& read : {one_by_one.Read(), together.Read()}) {
      EXPECT_EQ(read.counts, expected);
      EXPECT_DOUBLE_EQ(read.sum, std::accumulate(numbers.begin(), numbers.end(), 0.0));
    }
  }
}

TEST(HistogramTest, WhatIsNotFiniteDoesNotSpoilTheSum) {
  Histogram histogram({1});
  const std::vector<float> numbers = {std::nanf(""), 0.5f, std::numeric_limits<float>::infinity(),
                                      -std::numeric_limits<float>::infinity()};
  histogram.Observe(numbers);
  histogram.Observe(std::nan(""));
  EXPECT_EQ(histogram.Read().counts, (std::vector<uint64_t>{1, 4}));
  EXPECT_EQ(histogram.Read().sum, 0.5);
}

TEST(CallMetricsTest, NothingIsLostBetweenThreads) {
  CallMetrics metrics;
  constexpr uint64_t kThreads = 4, kCalls = 5000;
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      AttendAnswer answer;
      answer.coverage = {0.25f, 1.0f};
      answer.estimated_error = {0.5f, 0.0f};
      answer.degraded = true;
      answer.read = {.tokens = 10, .exact_tokens = 3, .bytes_read = 7, .disk_bytes_read = 2};
      for (uint64_t i = 0; i < kCalls; ++i) {
        metrics.RecordCall(Method::kAttend, absl::StatusCode::kOk, std::chrono::milliseconds(250));
        metrics.RecordAppended(3);
        metrics.RecordAnswer(answer);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  constexpr uint64_t kAll = kThreads * kCalls;
  EXPECT_EQ(metrics.calls(Method::kAttend)[0], kAll);
  EXPECT_EQ(Total(metrics.durations(CallKind::kAttend).counts), kAll);
  EXPECT_DOUBLE_EQ(metrics.durations(CallKind::kAttend).sum, 0.25 * kAll);
  EXPECT_EQ(metrics.appended_tokens(), 3 * kAll);
  EXPECT_EQ(metrics.attend_items()[0], kAll);
  EXPECT_EQ(metrics.degraded_items(), kAll);
  EXPECT_EQ(Total(metrics.coverages().counts), 2 * kAll);
  EXPECT_DOUBLE_EQ(metrics.coverages().sum, 1.25 * kAll);
  EXPECT_DOUBLE_EQ(metrics.estimated_errors().sum, 0.5 * kAll);
  EXPECT_EQ(metrics.tokens(), 10 * kAll);
  EXPECT_EQ(metrics.exact_tokens(), 3 * kAll);
  EXPECT_EQ(metrics.bytes_read(), 7 * kAll);
  EXPECT_EQ(metrics.disk_bytes_read(), 2 * kAll);
}

TEST(CallMetricsTest, MethodsAndCodesAreKeptApart) {
  CallMetrics metrics;
  std::set<std::string> names;
  for (size_t m = 0; m < kMethods; ++m) {
    names.insert(MethodName(static_cast<Method>(m)));
    for (size_t code = 0; code < kStatusCodes; ++code) {
      for (size_t i = 0; i < m + code; ++i) {
        metrics.RecordCall(static_cast<Method>(m), static_cast<absl::StatusCode>(code), {});
      }
    }
  }
  EXPECT_EQ(names.size(), kMethods);
  for (size_t m = 0; m < kMethods; ++m) {
    for (size_t code = 0; code < kStatusCodes; ++code) {
      EXPECT_EQ(metrics.calls(static_cast<Method>(m))[code], m + code);
    }
  }
  metrics.RecordItemError(static_cast<absl::StatusCode>(99));
  EXPECT_EQ(metrics.attend_items()[static_cast<size_t>(absl::StatusCode::kUnknown)], 1u);
}

}  // namespace
}  // namespace attic
