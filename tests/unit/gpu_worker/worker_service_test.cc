#include "gpu_worker/service/worker_service.h"

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <cstring>

#include "absl/time/clock.h"
#include "attic/v1/worker.grpc.pb.h"
#include "tests/unit/gpu_worker/memory_client.h"
#include "tests/unit/gpu_worker/tiny_model.h"

namespace attic::worker {
namespace {

using testing::HasSubstr;

std::string Bytes(const std::vector<uint32_t>& tokens) {
  return {reinterpret_cast<const char*>(tokens.data()), tokens.size() * 4};
}

class WorkerServiceTest : public testing::Test {
 protected:
  WorkerServiceTest() {
    model_ = MakeRandomModel({.layers = {{.full_attention = false}, {}}}, 31, *backend_);
    decoder_ = *Decoder::Create(*model_, *backend_, pool_, client_,
                                {.forward = {.sink_tokens = 2, .window_tokens = 16}});
    service_ = MakeWorkerService(*decoder_, {.sequences_max = 3, .prefill_tokens_max = 500});
    grpc::ServerBuilder builder;
    builder.RegisterService(service_.get());
    server_ = builder.BuildAndStart();
    stub_ = v1::WorkerService::NewStub(server_->InProcessChannel({}));
  }
  ~WorkerServiceTest() override { server_->Shutdown(); }

  grpc::Status Open(const std::string& id) {
    grpc::ClientContext context;
    v1::WorkerOpenRequest request;
    request.set_session_id(id);
    v1::WorkerSequence sequence;
    return stub_->Open(&context, request, &sequence);
  }
  grpc::Status Fork(const std::string& id, const std::string& new_id, v1::WorkerSequence& fork) {
    grpc::ClientContext context;
    v1::WorkerForkRequest request;
    request.set_session_id(id);
    request.set_new_session_id(new_id);
    return stub_->Fork(&context, request, &fork);
  }
  grpc::Status Close(const std::string& id) {
    grpc::ClientContext context;
    v1::WorkerCloseRequest request;
    request.set_session_id(id);
    v1::WorkerCloseResponse response;
    return stub_->Close(&context, request, &response);
  }
  grpc::Status Prefill(const std::string& id, const std::string& bytes,
                       std::vector<v1::PrefillProgress>* all = nullptr) {
    grpc::ClientContext context;
    v1::PrefillRequest request;
    request.set_session_id(id);
    request.set_token_ids(bytes);
    auto reader = stub_->Prefill(&context, request);
    v1::PrefillProgress progress;
    while (reader->Read(&progress)) {
      if (all != nullptr) all->push_back(progress);
    }
    return reader->Finish();
  }
  grpc::Status Decode(const v1::DecodeRequest& request,
                      std::vector<v1::DecodeToken>* all = nullptr) {
    grpc::ClientContext context;
    auto reader = stub_->Decode(&context, request);
    v1::DecodeToken token;
    while (reader->Read(&token)) {
      if (all != nullptr) all->push_back(token);
    }
    return reader->Finish();
  }

  ThreadPool pool_{2};
  std::unique_ptr<Backend> backend_ = MakeCpuBackend(pool_);
  MemoryClient client_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<Decoder> decoder_;
  std::unique_ptr<grpc::Service> service_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<v1::WorkerService::Stub> stub_;
  const std::vector<uint32_t> tokens_ = RandomTokens(100, 64, 31);
};

TEST_F(WorkerServiceTest, DescribesTheModel) {
  grpc::ClientContext context;
  v1::ModelDescription model;
  ASSERT_TRUE(stub_->GetModel(&context, {}, &model).ok());
  EXPECT_EQ(model.fingerprint().q_heads(), 4u);
  EXPECT_EQ(model.fingerprint().layers(), 2u);
  EXPECT_EQ(model.layer_types(0), "sliding_attention");
  EXPECT_EQ(model.layer_types(1), "full_attention");
  EXPECT_EQ(model.vocab_size(), 64u);
  EXPECT_EQ(model.backend(), "cpu");
  EXPECT_EQ(model.window_tokens(), 16u);
}

TEST_F(WorkerServiceTest, ReadsForksGeneratesAndCloses) {
  ASSERT_TRUE(Open("s").ok());
  std::vector<v1::PrefillProgress> progress;
  ASSERT_TRUE(Prefill("s", Bytes(tokens_), &progress).ok());
  ASSERT_EQ(progress.size(), 1u);
  EXPECT_TRUE(progress[0].done());
  EXPECT_EQ(progress[0].tokens(), 100);
  EXPECT_EQ(progress[0].acknowledged(), 99);
  v1::WorkerSequence fork;
  ASSERT_TRUE(Fork("s", "", fork).ok());
  EXPECT_EQ(fork.tokens(), 100);

  v1::DecodeRequest request;
  request.set_session_id("s");
  request.set_prompt_token_ids(Bytes({5, 6, 7}));
  request.set_max_tokens(8);
  request.set_compare_exact(true);
  request.mutable_selection()->set_top_k(300);
  std::vector<v1::DecodeToken> first, second;
  ASSERT_TRUE(Decode(request, &first).ok());
  request.set_session_id(fork.session_id());
  ASSERT_TRUE(Decode(request, &second).ok());
  ASSERT_EQ(first.size(), 8u);
  ASSERT_EQ(second.size(), 8u);
  for (int i = 0; i < 8; ++i) {
    EXPECT_EQ(first[i].token_id(), second[i].token_id());
    EXPECT_EQ(first[i].exact_token_id(), first[i].token_id());
    EXPECT_EQ(first[i].position(), 103 + i);
    EXPECT_GT(first[i].token_ms(), 0);
    EXPECT_GT(first[i].bytes_read(), 0u);
    EXPECT_EQ(first[i].estimated_error(), 0.25);
  }
  EXPECT_EQ(client_.last_selection, (SelectionPolicy{SelectionGoal::kTopK, 300}));
  EXPECT_TRUE(Close("s").ok());
  EXPECT_FALSE(client_.sessions.contains("s"));
  EXPECT_EQ(Close("s").error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(WorkerServiceTest, ErrorsNameFieldAndLimit) {
  ASSERT_TRUE(Open("s").ok());
  EXPECT_EQ(Open("s").error_code(), grpc::StatusCode::ALREADY_EXISTS);
  EXPECT_EQ(Prefill("t", "").error_code(), grpc::StatusCode::NOT_FOUND);
  grpc::Status status = Prefill("s", "12345");
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("token_ids"));
  status = Prefill("s", std::string(501 * 4, '\0'));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(status.error_message(), HasSubstr("prefill_tokens_max (500)"));
  status = Prefill("s", Bytes({1, 64}));
  EXPECT_THAT(status.error_message(), HasSubstr("token_ids[1]"));

  v1::DecodeRequest request;
  request.set_session_id("s");
  request.set_max_tokens(1);
  EXPECT_THAT(Decode(request).error_message(), HasSubstr("prompt_token_ids"));
  request.set_prompt_token_ids(Bytes({1}));
  request.set_max_tokens(4097);
  EXPECT_THAT(Decode(request).error_message(), HasSubstr("max_tokens: must be from 1 to 4096"));
  request.set_max_tokens(1);
  request.set_mode(static_cast<v1::AttendMode>(9));
  EXPECT_THAT(Decode(request).error_message(), HasSubstr("mode: 9"));
  request.set_mode(v1::ATTEND_MODE_EXACT);
  request.set_attend_budget_us(~uint64_t{0});
  EXPECT_THAT(Decode(request).error_message(), HasSubstr("attend_budget_us"));
  request.set_attend_budget_us(0);
  request.mutable_selection()->set_max_error(0);
  EXPECT_THAT(Decode(request).error_message(), HasSubstr("selection.max_error"));
  // Field 90, of a later version.
  ASSERT_TRUE(request.mutable_selection()->ParseFromString(std::string("\xd0\x05\x01", 3)));
  EXPECT_THAT(Decode(request).error_message(), HasSubstr("selection"));
  request.clear_selection();
  EXPECT_TRUE(Decode(request).ok());
}

TEST_F(WorkerServiceTest, BoundsSequences) {
  ASSERT_TRUE(Open("a").ok());
  ASSERT_TRUE(Open("").ok());
  v1::WorkerSequence fork;
  ASSERT_TRUE(Prefill("a", Bytes(tokens_)).ok());
  EXPECT_EQ(Fork("a", "a", fork).error_code(), grpc::StatusCode::ALREADY_EXISTS);
  EXPECT_EQ(Fork("x", "b", fork).error_code(), grpc::StatusCode::NOT_FOUND);
  ASSERT_TRUE(Fork("a", "b", fork).ok());
  const grpc::Status status = Open("c");
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(status.error_message(), HasSubstr("sequences_max (3)"));
  ASSERT_TRUE(Close("b").ok());
  EXPECT_TRUE(Open("c").ok());
}

TEST_F(WorkerServiceTest, OneCallAtATime) {
  ASSERT_TRUE(Open("s").ok());
  ASSERT_TRUE(Prefill("s", Bytes(tokens_)).ok());
  grpc::ClientContext context;
  v1::DecodeRequest request;
  request.set_session_id("s");
  request.set_max_tokens(4096);
  auto reader = stub_->Decode(&context, request);
  v1::DecodeToken token;
  ASSERT_TRUE(reader->Read(&token));
  const grpc::Status status = Prefill("s", Bytes(tokens_));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(status.error_message(), HasSubstr("another call"));
  context.TryCancel();
  while (reader->Read(&token)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  // The handler notices at its next token and gives the sequence back.
  grpc::Status later;
  for (int i = 0; i < 500; ++i) {
    later = Prefill("s", Bytes(tokens_));
    if (later.ok()) break;
    absl::SleepFor(absl::Milliseconds(10));
  }
  EXPECT_TRUE(later.ok()) << later.error_message();
}

}  // namespace
}  // namespace attic::worker
