#include "client/cli/demo/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

namespace attic::cli {
namespace {

using ::testing::HasSubstr;

DecodedToken Token(double attend_ms, uint64_t bytes) {
  return {.output_error = 0.01,
          .coverage = 0.9,
          .estimated_error = attend_ms / 1000,
          .token_ms = attend_ms + 1,
          .attend_ms = attend_ms,
          .bytes_read = bytes};
}

DemoReport MakeReport(size_t questions, size_t wrong) {
  DemoReport report{
      .tokens = 1000, .text_files = 2, .seed = 1, .selection = {SelectionGoal::kMaxError, 0.25}};
  for (size_t i = 0; i < questions; ++i) {
    report.rows.push_back({.needle = {.name = "bakuto", .digits = "4711", .depth = 0.5},
                           .answer = i < wrong ? "4712" : "4711",
                           .exact_answer = "4711",
                           .tokens = {Token(2, 100), Token(4, 300)},
                           .exact_tokens = {Token(8, 1000), Token(16, 1000)},
                           .compared = {Token(20, 100)}});
  }
  report.first = {.first_token_seconds = 60, .prefill = {.appended_bytes = 5000}};
  report.second = {.first_token_seconds = 0.5,
                   .prefill = {.reused_tokens = 768, .appended_bytes = 50}};
  report.second_correct = questions - wrong;
  report.phase_seconds = {{"text", 0.5}, {"prefill", 61}};
  report.store.memory = {.vectors_bytes = 1000, .codes_bytes = 30};
  return report;
}

TEST(ReportTest, SummaryIsOverAllTokens) {
  const DemoSummary summary = Summarize(MakeReport(3, 1));
  EXPECT_EQ(summary.questions, 3u);
  EXPECT_EQ(summary.correct, 2u);
  EXPECT_EQ(summary.exact_correct, 3u);
  EXPECT_EQ(summary.attend_ms, 2);
  EXPECT_EQ(summary.exact_attend_ms, 8);
  EXPECT_EQ(summary.bytes_read, 200);
  EXPECT_DOUBLE_EQ(summary.bytes_read_ratio, 0.2);
  EXPECT_DOUBLE_EQ(summary.speed_ratio(), 4);
  EXPECT_DOUBLE_EQ(summary.exact_token_ms, 9);
  EXPECT_DOUBLE_EQ(summary.first_token_ratio, 120);
  EXPECT_DOUBLE_EQ(summary.estimated_error_worst, 0.02);  // of the compared answers
}

TEST(ReportTest, PassesFrom95PercentOn) {
  EXPECT_TRUE(Summarize(MakeReport(20, 1)).passed());
  EXPECT_FALSE(Summarize(MakeReport(20, 2)).passed());
  EXPECT_FALSE(Summarize(MakeReport(4, 1)).passed());
}

TEST(ReportTest, JsonHasOneRowAQuestion) {
  const nlohmann::ordered_json json = ToJson(MakeReport(3, 1));
  EXPECT_EQ(json["tokens"], 1000);
  EXPECT_EQ(json["questions"], 3);
  EXPECT_EQ(json["correct_retrieval"], 2);
  EXPECT_EQ(json["correct_exact"], 3);
  EXPECT_EQ(json["output_error_median"], 0.01);
  EXPECT_EQ(json["estimated_error_median"], 0.02);
  EXPECT_EQ(json["selection"]["max_error"], 0.25);
  EXPECT_EQ(json["rows"][0]["estimated_error"], 0.02);
  EXPECT_EQ(json["coverage_median"], 0.9);
  EXPECT_EQ(json["ms_per_token_retrieval"], 2);
  EXPECT_EQ(json["ms_per_token_exact"], 8);
  EXPECT_EQ(json["bytes_read_ratio"], 0.2);
  EXPECT_EQ(json["memory"]["total_bytes"], 1030);
  EXPECT_EQ(json["seconds"]["prefill"], 61);
  EXPECT_EQ(json["first_token_seconds"], 60);
  EXPECT_EQ(json["first_token_seconds_second_reader"], 0.5);
  EXPECT_EQ(json["first_token_ratio"], 120);
  EXPECT_EQ(json["appended_bytes"], 5000);
  EXPECT_EQ(json["appended_bytes_second_reader"], 50);
  EXPECT_EQ(json["reused_tokens_second_reader"], 768);
  EXPECT_EQ(json["correct_second_reader"], 2);
  ASSERT_EQ(json["rows"].size(), 3u);
  EXPECT_EQ(json["rows"][0]["answer"], "4712");
  EXPECT_EQ(json["rows"][0]["correct_retrieval"], false);
  EXPECT_EQ(json["rows"][2]["correct_retrieval"], true);
}

TEST(ReportTest, TableShowsWrongAnswersAndUnprintableOnes) {
  DemoReport report = MakeReport(2, 1);
  report.rows[1].answer = "4\n\xff";
  std::ostringstream out;
  PrintReport(report, out);
  EXPECT_THAT(out.str(), HasSubstr("NO"));
  EXPECT_THAT(out.str(), HasSubstr("4\\x0a\\xff"));
  EXPECT_THAT(out.str(), HasSubstr("0.02000"));
  EXPECT_THAT(out.str(), HasSubstr("0/2"));
  EXPECT_THAT(out.str(), HasSubstr("4.0 times as fast"));
  EXPECT_THAT(out.str(), HasSubstr("120 times as soon"));
}

TEST(ReportTest, NoRowsAreNoCrash) {
  std::ostringstream out;
  PrintReport({}, out);
  EXPECT_FALSE(out.str().empty());
}

}  // namespace
}  // namespace attic::cli
