// The store's streams: order, limits, cancellation, draining; health and reflection.
#include <gmock/gmock.h>

#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "server/service/listen_address.h"
#include "tests/integration/store_service_fixture.h"

namespace attic {
namespace {

using ::testing::HasSubstr;

TEST_F(StoreServiceTest, AttendStreamAnswersManyRequestsInFlight) {
  OpenSession("s");
  Fill("s", 3000);
  const auto context = Context();
  const auto stream = attention_->AttendStream(context.get());
  constexpr uint64_t kRequests = 500;  // far more than a stream may have in flight
  std::thread writer([&] {
    for (uint64_t id = 1; id <= kRequests; ++id) {
      v1::AttendRequest request = AttendRequest("s");
      request.set_request_id(id);
      if (id % 10 == 0) request.set_budget_us(1);
      if (id % 50 == 0) request.clear_items();
      ASSERT_TRUE(stream->Write(request));
    }
    stream->WritesDone();
  });
  std::set<uint64_t> answered;
  v1::AttendResponse response;
  while (stream->Read(&response)) {
    EXPECT_TRUE(answered.insert(response.request_id()).second);
    EXPECT_EQ(response.boot_id(), server_->boot_id());
    if (response.request_id() % 50 == 0) {
      EXPECT_EQ(response.error().code(), grpc::StatusCode::INVALID_ARGUMENT);
      EXPECT_EQ(response.items_size(), 0);
    } else {
      ASSERT_EQ(response.items_size(), 1);
      EXPECT_EQ(response.items(0).error().code(), 0) << response.items(0).error().message();
    }
  }
  writer.join();
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_EQ(answered.size(), kRequests);
}

TEST_F(StoreServiceTest, AttendStreamWithASlowReaderLosesNothing) {
  OpenSession("s");
  Fill("s", 100);
  const auto context = Context();
  const auto stream = attention_->AttendStream(context.get());
  for (uint64_t id = 1; id <= 60; ++id) {
    v1::AttendRequest request = AttendRequest("s");
    request.set_request_id(id);
    ASSERT_TRUE(stream->Write(request));
  }
  absl::SleepFor(absl::Milliseconds(100));
  stream->WritesDone();
  int answers = 0;
  v1::AttendResponse response;
  while (stream->Read(&response)) ++answers;
  EXPECT_EQ(answers, 60);
  EXPECT_TRUE(stream->Finish().ok());
}

TEST_F(StoreServiceTest, StreamsTornDownWithWorkInFlightDoNoHarm) {
  OpenSession("s");
  Fill("s", 5000);
  for (int round = 0; round < 30; ++round) {
    const auto context = Context();
    const auto stream = attention_->AttendStream(context.get());
    for (int i = 0; i < 20; ++i) {
      v1::AttendRequest request;
      for (int item = 0; item < 8; ++item) *request.add_items() = Item("s");
      stream->Write(request);
    }
    if (round % 3 == 0) absl::SleepFor(absl::Milliseconds(round));
    context->TryCancel();
    if (round % 2 == 0) stream->Finish();
    // Otherwise the stream is dropped as it is.
  }
  for (int round = 0; round < 20; ++round) {
    const auto context = Context();
    const auto stream = attention_->Append(context.get());
    stream->Write(AppendRequest("s", 5000 + round, 1));
    context->TryCancel();
    stream->Finish();
  }
  v1::AttendResponse response;
  EXPECT_TRUE(attention_->Attend(Context().get(), AttendRequest("s"), &response).ok());
  EXPECT_EQ(response.items(0).error().code(), 0);
}

TEST_F(StoreServiceTest, AppendStreamAnswersInOrderWithoutWaiting) {
  OpenSession("s");
  const auto context = Context();
  const auto stream = attention_->Append(context.get());
  for (int64_t i = 0; i < 100; ++i) ASSERT_TRUE(stream->Write(AppendRequest("s", i * 30, 30)));
  stream->WritesDone();
  for (int64_t i = 0; i < 100; ++i) {
    v1::AppendResponse response;
    ASSERT_TRUE(stream->Read(&response));
    EXPECT_EQ(response.error().code(), 0) << response.error().message();
    EXPECT_EQ(response.watermark(), (i + 1) * 30);
    EXPECT_EQ(response.session_id(), "s");
  }
  EXPECT_TRUE(stream->Finish().ok());
}

TEST_F(StoreServiceTest, HealthAndReflectionAnswer) {
  std::string response;
  ASSERT_TRUE(CallByName(*channel_, "/grpc.health.v1.Health/Check", "", &response).ok());
  EXPECT_EQ(response, std::string("\x08\x01"));  // status: SERVING
  // ServerReflectionRequest{list_services: "*"}
  response.clear();
  ASSERT_TRUE(CallByName(*channel_,
                         "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
                         std::string("\x3a\x01*"), &response)
                  .ok());
  for (const char* service : {"attic.v1.SessionService", "attic.v1.AttentionService",
                              "attic.v1.AdminService", "grpc.health.v1.Health"}) {
    EXPECT_THAT(response, HasSubstr(service));
  }
}

TEST_F(StoreServiceTest, DrainAnswersWhatWasReadAndEndsStreams) {
  OpenSession("s");
  Fill("s", 100);
  const auto context = Context();
  const auto stream = attention_->AttendStream(context.get());
  v1::AttendRequest request = AttendRequest("s");
  request.set_request_id(1);
  ASSERT_TRUE(stream->Write(request));
  v1::AttendResponse response;
  ASSERT_TRUE(stream->Read(&response));
  const absl::Time start = absl::Now();
  server_->Drain(start + absl::Seconds(10));
  EXPECT_LT(absl::Now() - start, absl::Seconds(5)) << "an idle stream held the drain up";
  EXPECT_FALSE(stream->Read(&response));
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  v1::SessionDescription description;
  EXPECT_EQ(Open(OpenRequest("t"), &description).error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(StoreServiceTest, ExpiredDeadlinesAreRespected) {
  OpenSession("s");
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() - std::chrono::seconds(1));
  v1::AttendResponse response;
  EXPECT_EQ(attention_->Attend(&context, AttendRequest("s"), &response).error_code(),
            grpc::StatusCode::DEADLINE_EXCEEDED);
}

class SmallLimitsTest : public StoreServiceTest {
 protected:
  SmallLimitsTest() {
    options_.store.limits.message_bytes_max = 100'000;
    options_.store.limits.sessions_max = 2;
    options_.store.limits.pending_segments_max = 0;
    options_.store.limits.memory_bytes_max = 4'000'000;
  }
};

TEST_F(SmallLimitsTest, OversizedMessagesAreRefusedAndTheStoreGoesOn) {
  OpenSession("s");
  const auto context = Context();
  const auto stream = attention_->Append(context.get());
  stream->Write(AppendRequest("s", 0, 1000));
  v1::AppendResponse response;
  EXPECT_FALSE(stream->Read(&response));
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(Watermark("s"), 0);
  EXPECT_EQ(Append({AppendRequest("s", 0, 100)})[0].watermark(), 100);
}

TEST_F(SmallLimitsTest, SessionsAndMemoryAreLimited) {
  OpenSession("a");
  OpenSession("b");
  const grpc::Status refused = Open(OpenRequest("c"));
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(refused.error_message(), HasSubstr("sessions_max"));
  // Appends wait for the builder (pending_segments_max is 0) and go on until memory is short.
  v1::AppendResponse last;
  int64_t watermark = 0;
  for (int i = 0; i < 200 && last.error().code() == 0; ++i) {
    last = Append({AppendRequest("a", watermark, 500)})[0];
    if (last.error().code() == 0) watermark = last.watermark();
  }
  EXPECT_EQ(last.error().code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(last.error().message(), HasSubstr("memory_bytes_max"));
  EXPECT_EQ(Watermark("a"), watermark);
  EXPECT_GT(watermark, 1000);
}

TEST(StoreServerTest, ListensOnLoopbackUnlessToldOtherwise) {
  EXPECT_TRUE(IsLoopbackAddress("127.0.0.1:7400"));
  EXPECT_TRUE(IsLoopbackAddress("127.9.9.9:0"));
  EXPECT_TRUE(IsLoopbackAddress("localhost:0"));
  EXPECT_TRUE(IsLoopbackAddress("[::1]:0"));
  EXPECT_TRUE(IsLoopbackAddress("unix:/run/attic"));
  EXPECT_FALSE(IsLoopbackAddress("0.0.0.0:7400"));
  EXPECT_FALSE(IsLoopbackAddress("[::]:7400"));
  EXPECT_FALSE(IsLoopbackAddress("127.example.com:7400"));
  EXPECT_FALSE(IsLoopbackAddress("192.168.0.1:7400"));
  StoreServerOptions options;
  options.listen_address = "0.0.0.0:0";
  EXPECT_EQ(StoreServer::Start(options).status().code(), absl::StatusCode::kInvalidArgument);
  options.listen_address = "nonsense";
  EXPECT_EQ(StoreServer::Start(options).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(StoreServerTest, APortInUseIsAnError) {
  StoreServerOptions options;
  options.listen_address = "127.0.0.1:0";
  const auto first = StoreServer::Start(options);
  ASSERT_TRUE(first.ok());
  options.listen_address = (*first)->address();
  EXPECT_EQ(StoreServer::Start(options).status().code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace attic
