// The shared attend stream when answers are late, missing, out of order, or the stream ends.
#include "client/cpp/attend_stream.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "client/cpp/client.h"
#include "tests/unit/client/fake_store.h"

namespace attic {
namespace {

using ::testing::HasSubstr;

class AttendStreamTest : public ::testing::Test {
 protected:
  void Connect(const Limits& limits = {}) {
    auto client = ConnectClient({.address = store_.address(), .limits = limits});
    ASSERT_TRUE(client.ok()) << client.status();
    client_ = *std::move(client);
  }

  absl::StatusOr<AttendAnswer> Attend(uint32_t layer, absl::Duration timeout) {
    const std::vector<float> queries(4);
    const AttendItem item{.session_id = "s", .layer = layer, .queries = queries};
    auto answers = client_->Attend({&item, 1}, absl::Now() + timeout);
    if (!answers.ok()) return answers.status();
    return answers->front();
  }

  FakeStore store_;
  std::unique_ptr<Client> client_;  // destroyed first
};

TEST_F(AttendStreamTest, ALateAnswerIsDroppedAndTheStreamGoesOn) {
  std::atomic<int> streams{0};
  store_.attend = [&](grpc::ServerContext&, FakeStore::AttendServer& stream) {
    ++streams;
    v1::AttendRequest first, next;
    stream.Read(&first);
    while (stream.Read(&next)) {  // the first is answered after the second came
      if (first.request_id() != 0) stream.Write(FakeStore::Answer(first.request_id(), 1));
      first.set_request_id(0);
      stream.Write(FakeStore::Answer(next.request_id(), next.layer()));
    }
  };
  Connect();
  EXPECT_EQ(Attend(1, absl::Milliseconds(100)).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  for (uint32_t layer = 2; layer < 5; ++layer) {
    const auto answer = Attend(layer, absl::Seconds(10));
    ASSERT_TRUE(answer.ok()) << answer.status();
    EXPECT_EQ(answer->epoch, layer);
  }
  EXPECT_EQ(streams, 1);
}

TEST_F(AttendStreamTest, AnswersInAnyOrderReachTheirCallers) {
  constexpr int kCalls = 16;
  store_.attend = [&](grpc::ServerContext&, FakeStore::AttendServer& stream) {
    std::vector<v1::AttendRequest> requests(kCalls);
    for (v1::AttendRequest& request : requests) stream.Read(&request);
    for (int i = kCalls - 1; i >= 0; --i) {
      stream.Write(FakeStore::Answer(requests[i].request_id(), requests[i].layer()));
    }
    v1::AttendRequest end;
    stream.Read(&end);
  };
  Connect();
  std::atomic<int> right{0};
  std::vector<std::thread> threads;
  for (uint32_t layer = 0; layer < kCalls; ++layer) {
    threads.emplace_back([&, layer] {
      const auto answer = Attend(layer, absl::Seconds(10));
      right += answer.ok() && answer->epoch == layer ? 1 : 0;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(right, kCalls);
}

TEST_F(AttendStreamTest, RequestsInFlightAreBounded) {
  std::atomic<int> received{0};
  store_.attend = [&](grpc::ServerContext&, FakeStore::AttendServer& stream) {
    v1::AttendRequest request;
    while (stream.Read(&request)) ++received;
  };
  Connect({.attend_requests_in_flight_max = 2});
  std::vector<std::thread> threads;
  for (int i = 0; i < 2; ++i) {
    threads.emplace_back([&] {
      EXPECT_EQ(Attend(0, absl::Milliseconds(600)).status().code(),
                absl::StatusCode::kDeadlineExceeded);
    });
  }
  while (received < 2) absl::SleepFor(absl::Milliseconds(1));
  const auto third = Attend(0, absl::Milliseconds(100));
  EXPECT_EQ(third.status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(third.status().message()), HasSubstr("attend_requests_in_flight_max"));
  EXPECT_EQ(received, 2);
  for (std::thread& thread : threads) thread.join();
}

TEST_F(AttendStreamTest, AStoreThatReadsNothingDoesNotHoldACallerBeyondItsDeadline) {
  store_.attend = [](grpc::ServerContext& context, FakeStore::AttendServer&) {
    FakeStore::WaitForEnd(context);
  };
  Connect();
  const std::vector<float> queries(1 << 20);  // 4 MB: more than flow control lets through
  const AttendItem item{.session_id = "s", .queries = queries};
  for (int i = 0; i < 5; ++i) {
    const absl::Time start = absl::Now();
    EXPECT_EQ(client_->Attend({&item, 1}, start + absl::Milliseconds(100)).status().code(),
              absl::StatusCode::kDeadlineExceeded);
    EXPECT_LT(absl::Now() - start, absl::Seconds(2));
  }
}

TEST_F(AttendStreamTest, RequestsInFlightFailWhenTheStreamEndsAndTheNextOneOpensAnother) {
  std::atomic<int> streams{0};
  store_.attend = [&](grpc::ServerContext&, FakeStore::AttendServer& stream) {
    v1::AttendRequest request;
    stream.Read(&request);
    if (++streams == 1) return;
    do {
      stream.Write(FakeStore::Answer(request.request_id(), 7));
    } while (stream.Read(&request));
  };
  Connect();
  EXPECT_EQ(Attend(0, absl::Seconds(20)).status().code(), absl::StatusCode::kUnavailable);
  const auto answer = Attend(0, absl::Seconds(20));
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(answer->epoch, 7u);
}

TEST_F(AttendStreamTest, TheStoresEndIsSeenLongBeforeTheDeadline) {
  std::atomic<bool> received{false};
  store_.attend = [&](grpc::ServerContext& context, FakeStore::AttendServer& stream) {
    v1::AttendRequest request;
    stream.Read(&request);
    received = true;
    FakeStore::WaitForEnd(context);
  };
  Connect();
  std::thread stopper([&] {
    while (!received) absl::SleepFor(absl::Milliseconds(1));
    store_.Stop();
  });
  const absl::Time start = absl::Now();
  EXPECT_EQ(Attend(0, absl::Seconds(60)).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_LT(absl::Now() - start, absl::Seconds(10));
  stopper.join();
}

TEST_F(AttendStreamTest, TooLargeRequestsAreRefusedBeforeTheyAreSent) {
  store_.attend = [](grpc::ServerContext&, FakeStore::AttendServer& stream) {
    v1::AttendRequest request;
    while (stream.Read(&request)) stream.Write(FakeStore::Answer(request.request_id(), 1));
  };
  Connect({.message_bytes_max = 1000});
  const std::vector<float> queries(1000);
  const AttendItem item{.session_id = "s", .queries = queries};
  const auto refused = client_->Attend({&item, 1}, absl::Now() + absl::Seconds(10));
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("message_bytes_max"));
  EXPECT_TRUE(Attend(0, absl::Seconds(10)).ok());
}

TEST_F(AttendStreamTest, AnAnswerWithTooFewItemsIsAnError) {
  store_.attend = [](grpc::ServerContext&, FakeStore::AttendServer& stream) {
    v1::AttendRequest request;
    while (stream.Read(&request)) {
      v1::AttendResponse response;
      response.set_request_id(request.request_id());
      stream.Write(response);
    }
  };
  Connect();
  EXPECT_EQ(Attend(0, absl::Seconds(10)).status().code(), absl::StatusCode::kInternal);
}

}  // namespace
}  // namespace attic
