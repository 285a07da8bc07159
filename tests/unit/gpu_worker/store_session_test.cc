#include "gpu_worker/model/store_session.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/gpu_worker/memory_client.h"

namespace attic::worker {
namespace {

class StoreSessionTest : public testing::Test {
 protected:
  OpenSessionRequest Request(const std::string& id) {
    return {.session_id = id,
            .fingerprint = {.q_heads = 2,
                            .kv_heads = 1,
                            .head_dim = 4,
                            .value_dim = 4,
                            .element_type = ElementType::kFloat32,
                            .logit_scale = 1.0f},
            .stored_layers = {2, 5}};
  }
  std::unique_ptr<StoreSession> Open(const std::string& id) {
    auto session = StoreSession::Open(client_, Request(id), {.batch_tokens = 10});
    EXPECT_TRUE(session.ok()) << session.status();
    return *std::move(session);
  }
  // Appends tokens whose keys and values count up, so that their order can be checked.
  absl::Status Append(StoreSession& session, size_t stored_layer, size_t count, size_t samples) {
    std::vector<float> rows(count * 4);
    for (float& x : rows) x = next_++;
    const auto bytes = std::as_bytes(std::span(rows));
    return session.Append(stored_layer, count, bytes, bytes, std::vector<float>(samples * 8, 1.0f));
  }
  int64_t Held(const std::string& id, uint32_t layer) {
    return client_.sessions.at(id).layers.at(layer).tokens;
  }

  MemoryClient client_;
  float next_ = 0;
};

TEST_F(StoreSessionTest, SendsFullBatchesAndFlushesWhenAsked) {
  const auto session = Open("s");
  ASSERT_TRUE(Append(*session, 0, 7, 1).ok());
  EXPECT_EQ(Held("s", 2), 0);
  ASSERT_TRUE(Append(*session, 0, 27, 1).ok());
  EXPECT_EQ(Held("s", 2), 30);
  ASSERT_TRUE(Append(*session, 1, 5, 0).ok());
  EXPECT_EQ(session->acknowledged(), 0);
  ASSERT_TRUE(session->EnsureHeld(0).ok());
  EXPECT_EQ(Held("s", 2), 30);
  ASSERT_TRUE(session->SendFrom(5).ok());
  EXPECT_EQ(Held("s", 2), 30);
  EXPECT_EQ(Held("s", 5), 5);
  ASSERT_TRUE(session->EnsureHeld(1).ok());
  EXPECT_EQ(Held("s", 2), 34);
  EXPECT_EQ(session->acknowledged(), 5);  // the layer that has least
  EXPECT_EQ(client_.sessions["s"].layers[2].sample_floats, 16u);
  std::vector<float> keys(34 * 4);
  ToFloat32(client_.sessions["s"].layers[2].keys.data(), ElementType::kFloat32, keys);
  for (size_t i = 0; i < keys.size(); ++i) EXPECT_EQ(keys[i], static_cast<float>(i));
}

TEST_F(StoreSessionTest, LimitsTheQuerySample) {
  const auto session = Open("s");
  ASSERT_TRUE(Append(*session, 0, 10, 3000).ok());
  EXPECT_EQ(client_.sessions["s"].layers[2].sample_floats, Limits().query_sample_max * 4);
}

TEST_F(StoreSessionTest, RefusesSessionsWithTokens) {
  const auto session = Open("s");
  ASSERT_TRUE(Append(*session, 0, 10, 0).ok());
  ASSERT_TRUE(Append(*session, 1, 10, 0).ok());
  EXPECT_EQ(StoreSession::Open(client_, Request("s"), {}).status().code(),
            absl::StatusCode::kAlreadyExists);
}

TEST_F(StoreSessionTest, AttendsInBatches) {
  const auto session = Open("s");
  ASSERT_TRUE(Append(*session, 1, 20, 0).ok());
  ASSERT_TRUE(Append(*session, 0, 20, 0).ok());
  const std::vector<float> queries(300 * 8, 0.1f);
  StoreAnswer answer;
  StoreQuestion question{.stored_layer = 1,
                         .count = 300,
                         .queries = queries.data(),
                         .range = {3, 20},
                         .selection = {SelectionGoal::kTopK, 9}};
  ASSERT_TRUE(session->Attend(question, absl::InfiniteFuture(), answer).ok());
  EXPECT_EQ(client_.last_selection, question.selection);
  EXPECT_EQ(answer.estimated_error, 0.25f);
  EXPECT_EQ(client_.items_answered, 300u);
  EXPECT_EQ(answer.output.size(), 300u * 8);
  EXPECT_EQ(answer.log_sum_exp.size(), 600u);
  EXPECT_EQ(answer.bytes_read, 300u * 17 * 2 * 16);
  question.range.end = 21;
  EXPECT_EQ(session->Attend(question, absl::InfiniteFuture(), answer).code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST_F(StoreSessionTest, ForksHoldWhatWasAppended) {
  const auto session = Open("s");
  ASSERT_TRUE(Append(*session, 0, 5, 0).ok());
  ASSERT_TRUE(Append(*session, 1, 5, 0).ok());
  const auto fork = session->Fork("t");
  ASSERT_TRUE(fork.ok()) << fork.status();
  EXPECT_EQ((*fork)->id(), "t");
  EXPECT_EQ((*fork)->acknowledged(), 5);
  ASSERT_TRUE(Append(**fork, 0, 5, 0).ok());
  ASSERT_TRUE((*fork)->Flush().ok());
  EXPECT_EQ(Held("t", 2), 10);
  EXPECT_EQ(Held("s", 2), 5);
  EXPECT_TRUE((*fork)->Close().ok());
  EXPECT_FALSE(client_.sessions.contains("t"));
}

}  // namespace
}  // namespace attic::worker
