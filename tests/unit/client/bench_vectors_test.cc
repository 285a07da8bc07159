#include "client/cli/bench/bench_vectors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>

#include "attention/exact_attention.h"
#include "client/cli/bench/found_keys_attention.h"
#include "tests/unit/client/npy_test_file.h"
#include "tests/unit/index/attention_like_data.h"

namespace attic::cli {
namespace {

using testing::HasSubstr;

constexpr size_t kDim = 16;
constexpr size_t kValueDim = 8;

// Files of a small head; queries are 500 rows.
struct HeadFiles {
  HeadFiles(size_t key_count, ElementType type) : HeadFiles(SeededRandom(31), key_count, type) {}

  VectorsBenchOptions Options() const {
    VectorsBenchOptions options;
    options.data = {.queries_path = queries.path(),
                    .keys_path = keys.path(),
                    .values_path = values.path(),
                    .train = 400,
                    .test = 60,
                    .k = 20};
    options.json = true;
    return options;
  }

  TestFile queries, keys, values;

 private:
  HeadFiles(std::mt19937_64 random, size_t key_count, ElementType type)
      : HeadFiles(MakeAttentionLikeData(key_count, 500, kDim, random), type) {}
  HeadFiles(const AttentionLikeData& data, ElementType type)
      : queries("q.npy", NpyBytes(data.queries, kDim, ElementType::kFloat32)),
        keys("k.npy", NpyBytes(data.keys, kDim, type)),
        // Values that follow from keys, as in a model.
        values("v.npy", NpyBytes(FirstColumns(data), kValueDim, type)) {}

  static std::vector<float> FirstColumns(const AttentionLikeData& data) {
    std::vector<float> values;
    for (size_t i = 0; i < data.key_count(); ++i) {
      for (size_t d = 0; d < kValueDim; ++d) {
        values.push_back(data.keys[i * kDim + d] - 0.5f * data.keys[i * kDim + kDim - 1 - d]);
      }
    }
    return values;
  }
};

nlohmann::json RunJson(const VectorsBenchOptions& options) {
  std::ostringstream out;
  const absl::Status status = BenchVectors(options, out);
  EXPECT_TRUE(status.ok()) << status;
  return nlohmann::json::parse(out.str());
}

void ExpectShare(const nlohmann::json& value, const char* what) {
  if (value.is_null()) return;
  EXPECT_GE(value.get<double>(), 0.0) << what;
  EXPECT_LE(value.get<double>(), 1.0001) << what;
}

TEST(BenchVectorsTest, ReportsEveryIndexWithinSaneRanges) {
  for (const ElementType type : {ElementType::kFloat32, ElementType::kFloat16}) {
    const HeadFiles files(6000, type);
    VectorsBenchOptions options = files.Options();
    options.widths = {20, 80};
    const nlohmann::json report = RunJson(options);
    EXPECT_EQ(report["keys"], 6000);
    EXPECT_EQ(report["head_dim"], kDim);
    EXPECT_EQ(report["value_dim"], kValueDim);
    EXPECT_EQ(report["training_queries"], 400);
    EXPECT_EQ(report["test_queries"], 60);
    EXPECT_DOUBLE_EQ(report["logit_scale"].get<double>(), 0.25);
    std::vector<std::string> names;
    for (const auto& index : report["indexes"]) {
      names.push_back(index["index"].get<std::string>() + "/" +
                      index["setting"].get<std::string>());
      for (const char* share : {"recall", "coverage_estimated", "coverage_true"}) {
        ExpectShare(index[share], share);
      }
      EXPECT_GT(index["keys_share"].get<double>(), 0.0) << names.back();
      EXPECT_GT(index["bytes_share"].get<double>(), 0.0) << names.back();
      EXPECT_GT(index["query_ms"].get<double>(), 0.0) << names.back();
      if (!index["output_error"].is_null()) {
        EXPECT_LT(index["output_error"].get<double>(), 5.0) << names.back();
      }
    }
    EXPECT_THAT(names, testing::ElementsAre("exact/scan", "clustered/attend", "clustered/search 20",
                                            "query-aware graph/ef 20", "query-aware graph/ef 80",
                                            "hnswlib/ef 20", "hnswlib/ef 80"));
    const auto& indexes = report["indexes"];
    EXPECT_LT(indexes[0]["output_error"].get<double>(), 1e-4);
    EXPECT_TRUE(indexes[1]["recall"].is_null());
    EXPECT_TRUE(indexes[2]["output_error"].is_null());
    EXPECT_TRUE(indexes[5]["coverage_estimated"].is_null());
    EXPECT_GT(indexes[4]["recall"].get<double>(), 0.95);
    EXPECT_GT(indexes[4]["recall"].get<double>(), indexes[6]["recall"].get<double>());
    EXPECT_GT(indexes[4]["coverage_true"].get<double>(), indexes[3]["coverage_true"].get<double>());
    EXPECT_LT(indexes[1]["output_error"].get<double>(), 0.5);
    EXPECT_LT(indexes[4]["output_error"].get<double>(), indexes[3]["output_error"].get<double>());
    EXPECT_LT(indexes[4]["keys_share"].get<double>(), 0.5);
    EXPECT_NEAR(indexes[1]["coverage_estimated"].get<double>(),
                indexes[1]["coverage_true"].get<double>(), 0.15);
  }
}

TEST(BenchVectorsTest, TableNamesEveryIndex) {
  const HeadFiles files(2000, ElementType::kFloat32);
  VectorsBenchOptions options = files.Options();
  options.json = false;
  std::ostringstream out;
  ASSERT_TRUE(BenchVectors(options, out).ok());
  for (const char* text : {"2,000 keys", "recall@20", "exact", "clustered", "query-aware graph",
                           "hnswlib", "ef 160", " - "}) {
    EXPECT_THAT(out.str(), HasSubstr(text));
  }
}

TEST(BenchVectorsTest, FewKeysAndNoTrainingWork) {
  const HeadFiles files(15, ElementType::kFloat32);
  VectorsBenchOptions options = files.Options();
  options.data.train = 0;
  const nlohmann::json report = RunJson(options);
  EXPECT_EQ(report["k"], 15);
  EXPECT_DOUBLE_EQ(report["indexes"][3]["recall"].get<double>(), 1.0);
}

TEST(BenchVectorsTest, MistakesNameTheFileOrOption) {
  const HeadFiles files(100, ElementType::kFloat32);
  const TestFile other("other.npy", NpyBytes(std::vector<float>(120), 12, ElementType::kFloat32));
  const TestFile half("half.npy",
                      NpyBytes(std::vector<float>(800), kValueDim, ElementType::kFloat16));
  const auto expect_error = [](const VectorsBenchOptions& options, const std::string& text) {
    std::ostringstream out;
    const absl::Status status = BenchVectors(options, out);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(text));
    EXPECT_EQ(out.str(), "");
  };
  VectorsBenchOptions options = files.Options();
  options.data.queries_path = other.path();
  expect_error(options, "other.npy");
  options = files.Options();
  options.data.values_path = other.path();
  expect_error(options, "other.npy");
  options = files.Options();
  options.data.values_path = half.path();
  expect_error(options, "half.npy: descr");
  options = files.Options();
  options.data.train = 500;
  expect_error(options, "train");
  options = files.Options();
  options.data.k = 0;
  expect_error(options, "k:");
  options = files.Options();
  options.data.logit_scale = -1.0;
  expect_error(options, "logit-scale");
  options = files.Options();
  options.widths = {0};
  expect_error(options, "ef");
}

TEST(FoundKeysAttentionTest, MatchesReferenceOverTheSameKeys) {
  auto random = SeededRandom(32);
  const auto data = MakeAttentionLikeData(300, 1, kDim, random);
  std::vector<ScoredNode> found;
  std::vector<float> subset;
  for (uint32_t i = 0; i < 300; i += 7) {
    float score = 0;
    for (size_t d = 0; d < kDim; ++d) score += data.queries[d] * data.keys[i * kDim + d];
    found.push_back({score, i});
    subset.insert(subset.end(), data.keys.begin() + i * kDim, data.keys.begin() + (i + 1) * kDim);
  }
  const VectorsView rows{reinterpret_cast<const std::byte*>(subset.data()), ElementType::kFloat32,
                         found.size(), kDim};
  std::vector<double> expected(kDim);
  const double expected_sum =
      ReferenceAttention({data.queries.data(), kDim}, 0.25, rows, rows, expected);
  std::vector<float> output(kDim);
  const double sum = FoundKeysAttention().Attend(found, 0.25, data.keys_view(), output);
  EXPECT_NEAR(sum, expected_sum, 1e-5);
  for (size_t d = 0; d < kDim; ++d) EXPECT_NEAR(output[d], expected[d], 1e-5);
}

}  // namespace
}  // namespace attic::cli
