#include "server/session/validation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "tests/unit/session/session_test_data.h"

namespace attic {
namespace {

using ::testing::HasSubstr;

void ExpectRefused(const absl::Status& status, absl::StatusCode code, const std::string& names) {
  EXPECT_EQ(status.code(), code) << status.message();
  EXPECT_THAT(std::string(status.message()), HasSubstr(names));
}

OpenSessionRequest GoodOpen() {
  return {.session_id = "a/b:c-d_e.F0", .fingerprint = SmallFingerprint(), .stored_layers = {0, 3}};
}

TEST(ValidateOpenTest, AcceptsWhatIsRight) {
  EXPECT_TRUE(ValidateOpen(GoodOpen(), Limits()).ok());
  OpenSessionRequest unnamed = GoodOpen();
  unnamed.session_id.clear();
  EXPECT_TRUE(ValidateOpen(unnamed, Limits()).ok());
}

TEST(ValidateOpenTest, NamesTheFieldOrTheLimit) {
  const auto invalid = absl::StatusCode::kInvalidArgument;
  const auto exhausted = absl::StatusCode::kResourceExhausted;
  struct Case {
    std::function<void(OpenSessionRequest&)> spoil;
    absl::StatusCode code;
    std::string names;
  };
  const std::vector<Case> cases = {
      {[](auto& r) { r.session_id = "white space"; }, invalid, "session_id"},
      {[](auto& r) { r.session_id = std::string("nul\0", 4); }, invalid, "session_id"},
      {[](auto& r) { r.session_id.assign(129, 'a'); }, exhausted, "session_id_bytes_max"},
      {[](auto& r) { r.fingerprint.model_id = ""; }, invalid, "model_id"},
      {[](auto& r) { r.fingerprint.model_id.assign(257, 'm'); }, exhausted, "text_bytes_max"},
      {[](auto& r) { r.fingerprint.revision.assign(257, 'm'); }, exhausted, "revision"},
      {[](auto& r) { r.fingerprint.layers = 0; }, invalid, "layers"},
      {[](auto& r) { r.fingerprint.layers = 513; }, exhausted, "layers_max"},
      {[](auto& r) { r.fingerprint.kv_heads = 0; }, invalid, "kv_heads"},
      {[](auto& r) { r.fingerprint.kv_heads = 3; }, invalid, "q_heads"},
      {[](auto& r) { r.fingerprint.q_heads = 514; }, exhausted, "q_heads_max"},
      {[](auto& r) { r.fingerprint.head_dim = 1025; }, exhausted, "head_dim"},
      {[](auto& r) { r.fingerprint.value_dim = 0; }, invalid, "value_dim"},
      {[](auto& r) { r.fingerprint.element_type = ElementType(9); }, invalid, "element_type"},
      {[](auto& r) { r.fingerprint.logit_scale = 0; }, invalid, "logit_scale"},
      {[](auto& r) { r.fingerprint.logit_scale = NAN; }, invalid, "logit_scale"},
      {[](auto& r) { r.fingerprint.logit_scale = INFINITY; }, invalid, "logit_scale"},
      {[](auto& r) { r.stored_layers = {}; }, invalid, "stored_layers"},
      {[](auto& r) { r.stored_layers = {4}; }, invalid, "stored_layers"},
      {[](auto& r) {
         r.stored_layers = {1, 1};
       },
       invalid, "stored_layers"},
  };
  for (const Case& c : cases) {
    OpenSessionRequest request = GoodOpen();
    c.spoil(request);
    ExpectRefused(ValidateOpen(request, Limits()), c.code, c.names);
  }
}

TEST(CompareFingerprintsTest, NamesTheFieldThatDiffers) {
  const Fingerprint held = SmallFingerprint();
  const std::vector<std::pair<std::function<void(Fingerprint&)>, std::string>> cases = {
      {[](auto& f) { f.model_id = "x"; }, "model_id"},
      {[](auto& f) { f.revision = "x"; }, "revision"},
      {[](auto& f) { f.layers = 5; }, "layers"},
      {[](auto& f) { f.q_heads = 8; }, "q_heads"},
      {[](auto& f) { f.kv_heads = 1; }, "kv_heads"},
      {[](auto& f) { f.head_dim = 32; }, "head_dim"},
      {[](auto& f) { f.value_dim = 32; }, "value_dim"},
      {[](auto& f) { f.element_type = ElementType::kFloat16; }, "element_type"},
      {[](auto& f) { f.logit_scale = 1; }, "logit_scale"},
      {[](auto& f) { f.position_encoding = "rope"; }, "position_encoding"},
  };
  EXPECT_TRUE(CompareFingerprints(held, held).ok());
  for (const auto& [change, field] : cases) {
    Fingerprint requested = held;
    change(requested);
    ExpectRefused(CompareFingerprints(held, requested), absl::StatusCode::kFailedPrecondition,
                  "fingerprint." + field);
  }
}

class ValidateAppendTest : public ::testing::Test {
 protected:
  ValidateAppendTest()
      : tokens_(Tokens::Random(fingerprint_, 5, random_)),
        sample_(RandomFloats(3 * 4 * 16, random_)),
        batch_(tokens_.Batch("s", 0, 7)) {
    batch_.query_sample = sample_;
  }

  absl::Status Shape() { return ValidateAppendShape(batch_, fingerprint_, limits_); }

  std::mt19937_64 random_{1};
  Limits limits_;
  const Fingerprint fingerprint_ = SmallFingerprint();
  Tokens tokens_;
  std::vector<float> sample_;
  AppendBatch batch_;
};

TEST_F(ValidateAppendTest, AcceptsWhatIsRight) {
  EXPECT_TRUE(Shape().ok());
  EXPECT_TRUE(ValidateAppendContent(batch_, fingerprint_).ok());
}

TEST_F(ValidateAppendTest, ChecksCountsAndLengths) {
  const auto invalid = absl::StatusCode::kInvalidArgument;
  const AppendBatch good = batch_;
  batch_.keys = good.keys.first(good.keys.size() - 1);
  ExpectRefused(Shape(), invalid, "keys");
  batch_ = good;
  batch_.values = good.values.first(0);
  ExpectRefused(Shape(), invalid, "values");
  batch_ = good;
  batch_.count = 0;
  ExpectRefused(Shape(), invalid, "count");
  batch_.count = limits_.append_tokens_max + 1;
  ExpectRefused(Shape(), absl::StatusCode::kResourceExhausted, "append_tokens_max");
  batch_.count = std::numeric_limits<size_t>::max();
  ExpectRefused(Shape(), absl::StatusCode::kResourceExhausted, "append_tokens_max");
  batch_ = good;
  batch_.begin_position = -1;
  ExpectRefused(Shape(), invalid, "begin_position");
  batch_.begin_position = std::numeric_limits<int64_t>::max();
  ExpectRefused(Shape(), absl::StatusCode::kResourceExhausted, "session_tokens_max");
  batch_ = good;
  batch_.query_sample = good.query_sample.first(63);
  ExpectRefused(Shape(), invalid, "query_sample");
  limits_.query_sample_max = 11;
  batch_ = good;
  ExpectRefused(Shape(), absl::StatusCode::kResourceExhausted, "query_sample_max");
}

TEST_F(ValidateAppendTest, RefusesWhatIsNotFinite) {
  const float bad[] = {NAN, INFINITY, -INFINITY};
  for (const float number : bad) {
    const float good = sample_[5];
    sample_[5] = number;
    ExpectRefused(ValidateAppendContent(batch_, fingerprint_), absl::StatusCode::kInvalidArgument,
                  "query_sample");
    sample_[5] = good;
    for (auto* array : {&tokens_.keys, &tokens_.values}) {
      const std::vector<std::byte> held = *array;
      FromFloat32({&number, 1}, fingerprint_.element_type, array->data() + array->size() - 4);
      ExpectRefused(ValidateAppendContent(batch_, fingerprint_), absl::StatusCode::kInvalidArgument,
                    array == &tokens_.keys ? "keys" : "values");
      std::copy(held.begin(), held.end(), array->begin());
    }
  }
  EXPECT_TRUE(ValidateAppendContent(batch_, fingerprint_).ok());
}

TEST(ValidateQueriesTest, ChecksCountAndContent) {
  const Fingerprint f = SmallFingerprint();
  std::vector<float> queries(f.q_heads * f.head_dim, 1.0f);
  EXPECT_TRUE(ValidateQueries(queries, f).ok());
  queries.back() = NAN;
  ExpectRefused(ValidateQueries(queries, f), absl::StatusCode::kInvalidArgument, "queries");
  queries.pop_back();
  ExpectRefused(ValidateQueries(queries, f), absl::StatusCode::kInvalidArgument, "queries");
}

TEST(ValidateRangeTest, IsHalfOpenAndNotNegative) {
  EXPECT_TRUE(ValidateRange({}).ok());
  EXPECT_TRUE(ValidateRange({.begin = 5, .end = 5}).ok());
  ExpectRefused(ValidateRange({.begin = -1}), absl::StatusCode::kInvalidArgument, "range.begin");
  ExpectRefused(ValidateRange({.begin = 6, .end = 5}), absl::StatusCode::kInvalidArgument,
                "range.end");
}

TEST(ValidateSearchTest, LimitsTheAnswer) {
  const Fingerprint f = SmallFingerprint();
  Limits limits;
  EXPECT_TRUE(ValidateSearch({.k = 4096, .with_vectors = true}, f, limits).ok());
  ExpectRefused(ValidateSearch({.k = 0}, f, limits), absl::StatusCode::kInvalidArgument, "k");
  ExpectRefused(ValidateSearch({.k = 4097}, f, limits), absl::StatusCode::kResourceExhausted,
                "search_k_max");
  limits.message_bytes_max = 100'000;
  EXPECT_TRUE(ValidateSearch({.k = 1000}, f, limits).ok());
  ExpectRefused(ValidateSearch({.k = 1000, .with_vectors = true}, f, limits),
                absl::StatusCode::kResourceExhausted, "message_bytes_max");
}

TEST(ValidateSearchTest, HasNoOutputToErrIn) {
  const Fingerprint f = SmallFingerprint();
  EXPECT_TRUE(
      ValidateSearch({.k = 1, .selection = {SelectionGoal::kCoverage, 0.5}}, f, Limits()).ok());
  ExpectRefused(ValidateSearch({.k = 1, .selection = {SelectionGoal::kMaxError, 0.5}}, f, Limits()),
                absl::StatusCode::kInvalidArgument, "selection.max_error");
}

}  // namespace
}  // namespace attic
