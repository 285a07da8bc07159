// Items taken apart and put together again, against attention computed in one piece.
#include "client/cpp/cluster/attend_parts.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "tests/unit/client/client_test_data.h"

namespace attic {
namespace {

SessionInfo Info(int64_t shard_tokens) {
  return {.session_id = "s",
          .fingerprint = TestFingerprint(),
          .layers = {0},
          .placement_key = "s",
          .replication = {.replicas = 1, .shard_tokens = shard_tokens}};
}

TEST(AttendPartsTest, PartsCoverHeadsAndBlocksAndStateWhatTheyNeed) {
  const std::vector<float> queries(4 * 16);
  const AttendItem item{.session_id = "s", .min_watermark = 900, .queries = queries};
  const auto parts = SplitItem(Info(256), item, {.begin = 300, .end = 700});
  ASSERT_EQ(parts.size(), 2 * 2);
  EXPECT_EQ(parts[1].item.session_id, "s#0.0.2");
  EXPECT_EQ(parts[1].item.range, (PositionRange{.begin = 0, .end = 188}));
  EXPECT_EQ(parts[1].item.min_watermark, 256);
  EXPECT_EQ(parts[2].item.session_id, "s#0.1.1");
  EXPECT_EQ(parts[2].item.range, (PositionRange{.begin = 44, .end = 256}));
  EXPECT_EQ(parts[2].item.queries.data(), queries.data() + 2 * 16);
  EXPECT_EQ(SplitItem(Info(0), item, {.begin = 300, .end = 700})[0].item.min_watermark, 900);
  const auto none = SplitItem(Info(256), item, {.begin = 700, .end = 700});
  ASSERT_EQ(none.size(), 2);
  EXPECT_EQ(none[0].item.session_id, "s#0.0");
}

TEST(AttendPartsTest, BlocksMergeToTheWhole) {
  const auto seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937_64 random(seed);
  const SessionInfo info = Info(256);
  const TestLayer layer(1000, random);
  const std::vector<float> queries = RandomFloats(4 * 16, random);
  const PositionRange range{.begin = 100, .end = 900};
  const AttendItem item{.session_id = "s", .queries = queries};
  const std::vector<AttendPart> parts = SplitItem(info, item, range);
  std::vector<AttendAnswer> answers;
  std::uniform_real_distribution<float> share(0, 1);
  std::vector<double> mass(4), coverage(4), error(4);
  std::vector<double> whole_lse;
  const std::vector<double> whole = layer.Oracle(queries, range, whole_lse);
  for (const AttendPart& part : parts) {
    const PositionRange in_session{.begin = part.item.range.begin + part.block_begin,
                                   .end = part.item.range.end + part.block_begin};
    std::vector<double> log_sum_exp;
    const std::vector<double> output = layer.Oracle(queries, in_session, log_sum_exp);
    AttendAnswer answer{.range = part.item.range, .epoch = 7 + answers.size(), .boot_id = "x"};
    for (uint32_t q = part.shard.kv_head * 2; q < part.shard.kv_head * 2 + 2; ++q) {
      const auto head = std::span(output).subspan(q * 8, 8);
      answer.output.insert(answer.output.end(), head.begin(), head.end());
      answer.log_sum_exp.push_back(static_cast<float>(log_sum_exp[q]));
      answer.coverage.push_back(share(random));
      answer.estimated_error.push_back(share(random));
      const double weight = std::exp(log_sum_exp[q] - whole_lse[q]);
      double length = 0, whole_length = 0;
      for (size_t i = 0; i < 8; ++i) {
        length += head[i] * head[i];
        whole_length += whole[q * 8 + i] * whole[q * 8 + i];
      }
      mass[q] += weight;
      coverage[q] += weight * answer.coverage.back();
      error[q] += weight * answer.estimated_error.back() * std::sqrt(length / whole_length);
    }
    answer.read.tokens = static_cast<uint64_t>(part.item.range.end - part.item.range.begin);
    ASSERT_TRUE(CheckPartAnswer(info, part, answer).ok());
    answers.push_back(std::move(answer));
  }
  const AttendAnswer merged = MergeAnswers(info, parts, answers, range);
  EXPECT_LT(RelativeError(merged.output, whole), 1e-6);
  for (uint32_t q = 0; q < 4; ++q) {
    EXPECT_NEAR(mass[q], 1, 1e-6);
    EXPECT_NEAR(merged.log_sum_exp[q], whole_lse[q], 1e-5);
    EXPECT_NEAR(merged.coverage[q], coverage[q], 1e-5);
    EXPECT_NEAR(merged.estimated_error[q], error[q], 1e-5);
  }
  EXPECT_EQ(merged.read.tokens, 2 * 800);
  EXPECT_EQ(merged.epoch, 7);
  EXPECT_EQ(merged.range, range);
}

TEST(AttendPartsTest, AnswersOverOtherPositionsAreRefused) {
  const std::vector<float> queries(4 * 16);
  const SessionInfo info = Info(0);
  const AttendItem item{.session_id = "s", .queries = queries};
  const AttendPart part = SplitItem(info, item, {.begin = 0, .end = 10}).front();
  AttendAnswer answer{.output = std::vector<float>(2 * 8),
                      .log_sum_exp = {0, 0},
                      .coverage = {1, 1},
                      .estimated_error = {0, 0},
                      .range = {.begin = 0, .end = 10}};
  EXPECT_TRUE(CheckPartAnswer(info, part, answer).ok());
  answer.range.end = 9;
  EXPECT_FALSE(CheckPartAnswer(info, part, answer).ok());
  answer.range.end = 10;
  answer.output.pop_back();
  EXPECT_FALSE(CheckPartAnswer(info, part, answer).ok());
}

}  // namespace
}  // namespace attic
