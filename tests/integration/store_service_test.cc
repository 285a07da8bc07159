// The store behind gRPC: every way to ask wrongly is refused by name and changes nothing.
#include <gmock/gmock.h>

#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "tests/integration/store_service_fixture.h"

namespace attic {
namespace {

using ::testing::HasSubstr;

constexpr int kInvalid = grpc::StatusCode::INVALID_ARGUMENT;
constexpr int kExhausted = grpc::StatusCode::RESOURCE_EXHAUSTED;

std::string FloatBytes(float number) {
  return std::string(reinterpret_cast<const char*>(&number), sizeof(number));
}

void ExpectStatus(const grpc::Status& status, int code, const std::string& names) {
  EXPECT_EQ(status.error_code(), code) << status.error_message();
  EXPECT_THAT(status.error_message(), HasSubstr(names));
}

void ExpectError(const v1::Error& error, int code, const std::string& names) {
  EXPECT_EQ(error.code(), code) << error.message();
  EXPECT_THAT(error.message(), HasSubstr(names));
}

TEST_F(StoreServiceTest, OpenNamesTheFieldOfTheFingerprintThatDiffers) {
  OpenSession("s");
  v1::SessionDescription again;
  ASSERT_TRUE(Open(OpenRequest("s"), &again).ok());
  EXPECT_EQ(again.session_id(), "s");
  const std::vector<std::pair<std::function<void(v1::Fingerprint*)>, std::string>> changes = {
      {[](auto* f) { f->set_model_id("other"); }, "fingerprint.model_id"},
      {[](auto* f) { f->set_revision("2"); }, "fingerprint.revision"},
      {[](auto* f) { f->set_layers(5); }, "fingerprint.layers"},
      {[](auto* f) { f->set_q_heads(8); }, "fingerprint.q_heads"},
      {[](auto* f) { f->set_kv_heads(4); }, "fingerprint.kv_heads"},
      {[](auto* f) { f->set_head_dim(32); }, "fingerprint.head_dim"},
      {[](auto* f) { f->set_value_dim(32); }, "fingerprint.value_dim"},
      {[](auto* f) { f->set_element_type(v1::ELEMENT_TYPE_FLOAT16); }, "fingerprint.element_type"},
      {[](auto* f) { f->set_logit_scale(0.5f); }, "fingerprint.logit_scale"},
      {[](auto* f) { f->set_position_encoding("rope"); }, "fingerprint.position_encoding"},
  };
  for (const auto& [change, field] : changes) {
    v1::OpenRequest request = OpenRequest("s");
    change(request.mutable_fingerprint());
    ExpectStatus(Open(request), grpc::StatusCode::FAILED_PRECONDITION, field);
  }
  v1::OpenRequest request = OpenRequest("s");
  request.add_stored_layers(2);
  ExpectStatus(Open(request), grpc::StatusCode::FAILED_PRECONDITION, "stored_layers");
}

TEST_F(StoreServiceTest, OpenRefusesBadInput) {
  v1::OpenRequest request = OpenRequest("no spaces");
  ExpectStatus(Open(request), kInvalid, "session_id");
  request = OpenRequest("s");
  request.clear_fingerprint();
  ExpectStatus(Open(request), kInvalid, "fingerprint.element_type");
  request = OpenRequest("s");
  request.clear_stored_layers();
  ExpectStatus(Open(request), kInvalid, "stored_layers");
  request = OpenRequest(std::string(129, 'a'));
  ExpectStatus(Open(request), kExhausted, "session_id_bytes_max");
  // The store chooses an id when there is none.
  v1::SessionDescription chosen;
  ASSERT_TRUE(Open(OpenRequest(""), &chosen).ok());
  EXPECT_FALSE(chosen.session_id().empty());
}

TEST_F(StoreServiceTest, RefusedAppendsChangeNothingAndTheStreamGoesOn) {
  OpenSession("s");
  const v1::AppendRequest first = AppendRequest("s", 0, 50);
  ASSERT_EQ(Append({first})[0].watermark(), 50);
  struct Case {
    std::function<void(v1::AppendRequest&)> spoil;
    int code;
    std::string names;
  };
  const int64_t huge = std::numeric_limits<int64_t>::max();
  const std::vector<Case> cases = {
      {[](auto& r) { r.set_session_id("other"); }, grpc::StatusCode::NOT_FOUND, "session_id"},
      {[](auto& r) { r.set_layer(2); }, kInvalid, "layer"},
      {[](auto& r) { r.set_begin_position(51); }, grpc::StatusCode::OUT_OF_RANGE, "begin_position"},
      {[](auto& r) { r.set_begin_position(45); }, grpc::StatusCode::ALREADY_EXISTS, "position 45"},
      {[](auto& r) { r.set_begin_position(-1); }, kInvalid, "begin_position"},
      {[=](auto& r) { r.set_begin_position(huge); }, kExhausted, "session_tokens_max"},
      {[](auto& r) { r.set_count(0); }, kInvalid, "count"},
      {[](auto& r) { r.set_count(9); }, kInvalid, "keys"},
      {[](auto& r) { r.set_count(4'000'000'000u); }, kExhausted, "append_tokens_max"},
      {[](auto& r) { r.mutable_keys()->pop_back(); }, kInvalid, "keys"},
      {[](auto& r) { r.clear_values(); }, kInvalid, "values"},
      {[](auto& r) { r.mutable_keys()->replace(8, 4, FloatBytes(NAN)); }, kInvalid, "keys"},
      {[](auto& r) { r.mutable_values()->replace(0, 4, FloatBytes(INFINITY)); }, kInvalid,
       "values"},
      {[](auto& r) { r.set_query_sample("123"); }, kInvalid, "query_sample"},
      {[](auto& r) { r.set_query_sample("1234"); }, kInvalid, "query_sample"},
      {[](auto& r) { r.set_epoch(99); }, grpc::StatusCode::FAILED_PRECONDITION, "epoch"},
  };
  std::vector<v1::AppendRequest> requests;
  for (const Case& c : cases) {
    requests.push_back(AppendRequest("s", 50, 10));
    c.spoil(requests.back());
  }
  requests.push_back(first);                       // held already: a success
  requests.push_back(AppendRequest("s", 50, 10));  // and what comes next goes on
  const auto responses = Append(requests);
  ASSERT_EQ(responses.size(), requests.size());
  for (size_t i = 0; i < cases.size(); ++i) {
    SCOPED_TRACE(i);
    ExpectError(responses[i].error(), cases[i].code, cases[i].names);
  }
  EXPECT_EQ(responses[cases.size()].watermark(), 50);
  EXPECT_EQ(responses[cases.size()].error().code(), 0);
  EXPECT_EQ(responses.back().watermark(), 60);
  EXPECT_EQ(Watermark("s"), 60);
  EXPECT_EQ(Watermark("s", 1), 0);
}

TEST_F(StoreServiceTest, RefusedItemsLeaveTheOthersAlone) {
  OpenSession("s");
  Fill("s", 100);
  struct Case {
    std::function<void(v1::AttendItem&)> spoil;
    int code;
    std::string names;
  };
  const std::vector<Case> cases = {
      {[](auto& i) { i.set_session_id("other"); }, grpc::StatusCode::NOT_FOUND, "session_id"},
      {[](auto& i) { i.set_min_watermark(101); }, grpc::StatusCode::FAILED_PRECONDITION,
       "min_watermark"},
      {[](auto& i) { i.mutable_queries()->append("1234"); }, kInvalid, "queries"},
      {[](auto& i) { i.mutable_queries()->pop_back(); }, kInvalid, "queries"},
      {[](auto& i) { i.clear_queries(); }, kInvalid, "queries"},
      {[](auto& i) { i.mutable_queries()->replace(4, 4, FloatBytes(NAN)); }, kInvalid, "queries"},
      {[](auto& i) { i.set_query_type(static_cast<v1::ElementType>(8)); }, kInvalid, "query_type"},
      {[](auto& i) { i.set_mode(static_cast<v1::AttendMode>(8)); }, kInvalid, "mode"},
      {[](auto& i) { i.mutable_range()->set_begin(-1); }, kInvalid, "range.begin"},
      {[](auto& i) { i.mutable_range()->set_end(-1); }, kInvalid, "range.end"},
      {[](auto& i) { i.mutable_selection()->set_top_k(0); }, kInvalid, "selection.top_k"},
      {[](auto& i) { i.mutable_selection()->set_top_k((1u << 20) + 1); }, kExhausted,
       "selection_top_k_max"},
      {[](auto& i) { i.mutable_selection()->set_token_budget(0); }, kInvalid,
       "selection.token_budget"},
      {[](auto& i) { i.mutable_selection()->set_coverage(0); }, kInvalid, "selection.coverage"},
      {[](auto& i) { i.mutable_selection()->set_coverage(NAN); }, kInvalid, "selection.coverage"},
      {[](auto& i) { i.mutable_selection()->set_max_error(1.1f); }, kInvalid,
       "selection.max_error"},
      {[](auto& i) { i.mutable_selection()->set_inner_product_range(-1); }, kInvalid,
       "selection.inner_product_range"},
      {[](auto& i) { i.mutable_selection()->set_inner_product_range(INFINITY); }, kInvalid,
       "selection.inner_product_range"},
  };
  v1::AttendRequest request;
  for (const Case& c : cases) {
    c.spoil(*request.add_items() = Item("s"));
    *request.add_items() = Item("s");
  }
  v1::AttendResponse response;
  ASSERT_TRUE(attention_->Attend(Context().get(), request, &response).ok());
  ASSERT_EQ(response.items_size(), request.items_size());
  EXPECT_EQ(response.boot_id(), server_->boot_id());
  for (size_t i = 0; i < cases.size(); ++i) {
    SCOPED_TRACE(i);
    const auto& refused = response.items(static_cast<int>(2 * i));
    ExpectError(refused.error(), cases[i].code, cases[i].names);
    EXPECT_TRUE(refused.output().empty());
    const auto& answered = response.items(static_cast<int>(2 * i + 1));
    EXPECT_EQ(answered.error().code(), 0);
    EXPECT_EQ(answered.output().size(), kQHeads * kValueDim * sizeof(float));
    EXPECT_EQ(answered.log_sum_exp_size(), static_cast<int>(kQHeads));
    EXPECT_EQ(answered.estimated_error_size(), static_cast<int>(kQHeads));
    EXPECT_EQ(answered.range().end(), 100);
  }
}

TEST_F(StoreServiceTest, RefusedBatchesAreNamed) {
  OpenSession("s");
  v1::AttendResponse response;
  ExpectStatus(attention_->Attend(Context().get(), v1::AttendRequest(), &response), kInvalid,
               "items");
  v1::AttendRequest many;
  for (int i = 0; i < 257; ++i) *many.add_items() = Item("s");
  ExpectStatus(attention_->Attend(Context().get(), many, &response), kExhausted,
               "attend_items_max");
  v1::AttendRequest stale = AttendRequest("s");
  stale.set_epoch(7);
  ExpectStatus(attention_->Attend(Context().get(), stale, &response),
               grpc::StatusCode::FAILED_PRECONDITION, "epoch");
  v1::AttendRequest wrong_layer = AttendRequest("s");
  wrong_layer.set_layer(3);
  ASSERT_TRUE(attention_->Attend(Context().get(), wrong_layer, &response).ok());
  ExpectError(response.items(0).error(), kInvalid, "layer");
}

TEST_F(StoreServiceTest, SearchRefusesBadInputAndFinds) {
  OpenSession("s");
  Fill("s", 500);
  v1::SearchRequest request;
  request.set_session_id("s");
  request.set_queries(RandomFloatBytes(kQHeads * kHeadDim));
  request.set_mode(v1::ATTEND_MODE_EXACT);
  v1::SearchResponse response;
  ExpectStatus(attention_->Search(Context().get(), request, &response), kInvalid, "k");
  request.set_k(5000);
  ExpectStatus(attention_->Search(Context().get(), request, &response), kExhausted, "search_k_max");
  request.set_k(3);
  request.mutable_selection()->set_max_error(0.5f);
  ExpectStatus(attention_->Search(Context().get(), request, &response), kInvalid,
               "selection.max_error");
  request.mutable_selection()->set_coverage(2);
  ExpectStatus(attention_->Search(Context().get(), request, &response), kInvalid,
               "selection.coverage");
  request.clear_selection();
  request.set_with_vectors(true);
  ASSERT_TRUE(attention_->Search(Context().get(), request, &response).ok());
  ASSERT_EQ(response.heads_size(), static_cast<int>(kQHeads));
  for (const v1::SearchHits& head : response.heads()) {
    EXPECT_EQ(head.positions_size(), 3);
    EXPECT_GE(head.scores(0), head.scores(1));
    EXPECT_EQ(head.keys().size(), 3 * kHeadDim * sizeof(float));
    EXPECT_EQ(head.values().size(), 3 * kValueDim * sizeof(float));
  }
  request.set_session_id("other");
  ExpectStatus(attention_->Search(Context().get(), request, &response), grpc::StatusCode::NOT_FOUND,
               "session_id");
}

TEST_F(StoreServiceTest, ForkTruncateListAndClose) {
  OpenSession("s");
  Fill("s", 700);
  v1::ForkRequest fork;
  fork.set_session_id("s");
  fork.set_position(10);
  v1::SessionDescription description;
  // Layer 1 is empty: the session's watermark is 0.
  ExpectStatus(sessions_->Fork(Context().get(), fork, &description), grpc::StatusCode::OUT_OF_RANGE,
               "position");
  std::vector<v1::AppendRequest> other_layer = {AppendRequest("s", 0, 700)};
  other_layer[0].set_layer(1);
  Append(other_layer);
  fork.set_position(600);
  fork.set_new_session_id("t");
  ASSERT_TRUE(sessions_->Fork(Context().get(), fork, &description).ok());
  EXPECT_EQ(description.watermark(), 600);
  ExpectStatus(sessions_->Fork(Context().get(), fork, &description),
               grpc::StatusCode::ALREADY_EXISTS, "new_session_id");
  fork.set_position(-1);
  ExpectStatus(sessions_->Fork(Context().get(), fork, &description), kInvalid, "position");

  v1::TruncateRequest truncate;
  truncate.set_session_id("s");
  truncate.set_position(701);
  ExpectStatus(sessions_->Truncate(Context().get(), truncate, &description),
               grpc::StatusCode::OUT_OF_RANGE, "position");
  truncate.set_position(100);
  ASSERT_TRUE(sessions_->Truncate(Context().get(), truncate, &description).ok());
  EXPECT_EQ(Watermark("s"), 100);
  EXPECT_EQ(Watermark("t"), 600);

  v1::ListRequest list;
  list.set_page_size(1);
  v1::ListResponse page;
  ASSERT_TRUE(sessions_->List(Context().get(), list, &page).ok());
  ASSERT_EQ(page.sessions_size(), 1);
  EXPECT_EQ(page.sessions(0).session_id(), "s");
  EXPECT_TRUE(page.more());
  list.set_after_session_id("s");
  ASSERT_TRUE(sessions_->List(Context().get(), list, &page).ok());
  EXPECT_EQ(page.sessions(0).session_id(), "t");
  EXPECT_FALSE(page.more());
  list.set_page_size(1001);
  ExpectStatus(sessions_->List(Context().get(), list, &page), kExhausted, "page_size");

  v1::CloseRequest close;
  close.set_session_id("s");
  v1::CloseResponse closed;
  ASSERT_TRUE(sessions_->Close(Context().get(), close, &closed).ok());
  ExpectStatus(sessions_->Close(Context().get(), close, &closed), grpc::StatusCode::NOT_FOUND,
               "session_id");
  EXPECT_EQ(Watermark("s"), -1);
  EXPECT_EQ(Watermark("t"), 600);
}

TEST_F(StoreServiceTest, StatusDescribesTheStore) {
  OpenSession("s");
  Fill("s", 300);
  v1::StoreStatus status;
  ASSERT_TRUE(admin_->GetStatus(Context().get(), v1::GetStatusRequest(), &status).ok());
  EXPECT_EQ(status.boot_id(), server_->boot_id());
  EXPECT_EQ(status.sessions(), 1u);
  EXPECT_EQ(status.tokens(), 300u);
  EXPECT_EQ(status.threads(), 2u);
  EXPECT_GT(status.memory().vectors_bytes() + status.memory().tail_bytes(), 0u);
}

}  // namespace
}  // namespace attic
