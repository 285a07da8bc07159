// Pipelined appends: the bound on bytes in flight, and what happens when acknowledgements stay
// away.
#include "client/cpp/append_stream.h"

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

constexpr size_t kBatchBytes = 100'000;  // of keys, and again of values

class AppendStreamTest : public ::testing::Test {
 protected:
  void Connect(ClientOptions options = {}) {
    options.address = store_.address();
    auto client = ConnectClient(options);
    ASSERT_TRUE(client.ok()) << client.status();
    client_ = *std::move(client);
    auto stream = client_->OpenAppendStream();
    ASSERT_TRUE(stream.ok()) << stream.status();
    stream_ = *std::move(stream);
  }

  absl::Status Append(int64_t begin) {
    const std::vector<std::byte> data(kBatchBytes);
    return stream_->Append(
        {.session_id = "s", .begin_position = begin, .count = 1, .keys = data, .values = data});
  }

  static v1::AppendResponse Ack(int64_t watermark) {
    v1::AppendResponse response;
    response.set_watermark(watermark);
    return response;
  }

  FakeStore store_;
  std::unique_ptr<Client> client_;
  std::unique_ptr<AppendStream> stream_;  // destroyed first
};

TEST_F(AppendStreamTest, FlushReturnsTheLastAcknowledgement) {
  store_.append = [](grpc::ServerContext&, FakeStore::AppendServer& stream) {
    v1::AppendRequest request;
    while (stream.Read(&request)) stream.Write(Ack(request.begin_position() + 1));
  };
  Connect();
  EXPECT_EQ(stream_->Flush(absl::Now() + absl::Seconds(1))->watermark, 0);  // nothing was sent
  for (int64_t i = 0; i < 50; ++i) ASSERT_TRUE(Append(i).ok());
  const auto ack = stream_->Flush(absl::Now() + absl::Seconds(20));
  ASSERT_TRUE(ack.ok()) << ack.status();
  EXPECT_EQ(ack->watermark, 50);
}

TEST_F(AppendStreamTest, BytesInFlightAreBounded) {
  std::atomic<int> sent{0}, acknowledged{0}, ahead{0};
  store_.append = [&](grpc::ServerContext&, FakeStore::AppendServer& stream) {
    v1::AppendRequest request;
    while (stream.Read(&request)) {
      absl::SleepFor(absl::Milliseconds(2));
      ahead = std::max<int>(ahead, sent - acknowledged);
      ++acknowledged;
      stream.Write(Ack(request.begin_position() + 1));
    }
  };
  Connect({.limits = {.append_bytes_in_flight_max = 3 * (2 * kBatchBytes + 100)}});
  for (int64_t i = 0; i < 40; ++i) {
    ASSERT_TRUE(Append(i).ok());
    ++sent;
  }
  ASSERT_TRUE(stream_->Flush(absl::Now() + absl::Seconds(20)).ok());
  EXPECT_LE(ahead, 3);
  EXPECT_GE(ahead, 2);
}

TEST_F(AppendStreamTest, AppendGivesUpWhenNothingIsAcknowledged) {
  store_.append = [](grpc::ServerContext& context, FakeStore::AppendServer&) {
    FakeStore::WaitForEnd(context);
  };
  Connect({.call_timeout = absl::Milliseconds(300),
           .limits = {.append_bytes_in_flight_max = 10 * kBatchBytes}});
  absl::Status status;
  int64_t sent = 0;
  const absl::Time start = absl::Now();
  while ((status = Append(sent)).ok()) ++sent;
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("append_bytes_in_flight_max"));
  EXPECT_EQ(sent, 4);
  EXPECT_LT(absl::Now() - start, absl::Seconds(5));
  EXPECT_EQ(Append(sent), status);  // the first error stays
}

TEST_F(AppendStreamTest, FlushEndsAtItsDeadlineAndMayBeCalledAgain) {
  std::atomic<bool> answer{false};
  store_.append = [&](grpc::ServerContext&, FakeStore::AppendServer& stream) {
    v1::AppendRequest request;
    while (stream.Read(&request)) {
      while (!answer) absl::SleepFor(absl::Milliseconds(1));
      stream.Write(Ack(request.begin_position() + 1));
    }
  };
  Connect();
  ASSERT_TRUE(Append(0).ok());
  EXPECT_EQ(stream_->Flush(absl::Now() + absl::Milliseconds(50)).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  answer = true;
  const auto ack = stream_->Flush(absl::Now() + absl::Seconds(20));
  ASSERT_TRUE(ack.ok()) << ack.status();
  EXPECT_EQ(ack->watermark, 1);
}

TEST_F(AppendStreamTest, TheFirstErrorIsKept) {
  store_.append = [](grpc::ServerContext&, FakeStore::AppendServer& stream) {
    v1::AppendRequest request;
    for (int i = 0; stream.Read(&request); ++i) {
      v1::AppendResponse response = Ack(i);
      if (i > 0) {
        response.mutable_error()->set_code(i == 1 ? 11 : 5);  // OUT_OF_RANGE, then NOT_FOUND
        response.mutable_error()->set_message("refused " + std::to_string(i));
      }
      stream.Write(response);
    }
  };
  Connect();
  for (int64_t i = 0; i < 4; ++i) (void)Append(i);
  const auto ack = stream_->Flush(absl::Now() + absl::Seconds(20));
  EXPECT_EQ(ack.status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(ack.status().message(), "refused 1");
  EXPECT_EQ(Append(4).message(), "refused 1");
}

TEST_F(AppendStreamTest, TheStoresEndFailsTheStream) {
  store_.append = [](grpc::ServerContext&, FakeStore::AppendServer& stream) {
    v1::AppendRequest request;
    stream.Read(&request);
  };
  Connect();
  ASSERT_TRUE(Append(0).ok());
  EXPECT_EQ(stream_->Flush(absl::Now() + absl::Seconds(60)).status().code(),
            absl::StatusCode::kUnavailable);
  EXPECT_EQ(Append(1).code(), absl::StatusCode::kUnavailable);
}

TEST_F(AppendStreamTest, TooLargeBatchesAreRefusedBeforeTheyAreSent) {
  store_.append = [](grpc::ServerContext& context, FakeStore::AppendServer&) {
    FakeStore::WaitForEnd(context);
  };
  Connect({.limits = {.message_bytes_max = kBatchBytes}});
  const absl::Status status = Append(0);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("message_bytes_max"));
}

TEST_F(AppendStreamTest, DestructionAbandonsWhatIsNotAcknowledged) {
  store_.append = [](grpc::ServerContext& context, FakeStore::AppendServer&) {
    FakeStore::WaitForEnd(context);
  };
  Connect();
  for (int64_t i = 0; i < 10; ++i) ASSERT_TRUE(Append(i).ok());
  const absl::Time start = absl::Now();
  stream_ = nullptr;
  EXPECT_LT(absl::Now() - start, absl::Seconds(5));
}

}  // namespace
}  // namespace attic
