// The remote client against stores that are not there, not stores, or come back.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/cpp/client.h"
#include "server/service/store_server.h"
#include "tests/unit/client/client_test_data.h"

namespace attic {
namespace {

using ::testing::HasSubstr;

std::unique_ptr<StoreServer> StartStore(const std::string& address) {
  auto server = StoreServer::Start({.listen_address = address, .store = SmallStoreOptions()});
  EXPECT_TRUE(server.ok()) << server.status();
  return *std::move(server);
}

absl::Status TryConnect(const std::string& address) {
  const absl::Time start = absl::Now();
  const auto client =
      ConnectClient({.address = address, .connect_timeout = absl::Milliseconds(400)});
  EXPECT_LT(absl::Now() - start, absl::Seconds(5));
  return client.status();
}

TEST(ConnectClientTest, NobodyListens) {
  const absl::Status status = TryConnect("127.0.0.1:1");
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr("127.0.0.1:1"));
}

TEST(ConnectClientTest, AListenerThatNeverSpeaks) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
  socklen_t size = sizeof address;
  ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(listen(fd, 8), 0);
  ASSERT_EQ(getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size), 0);
  const absl::Status status = TryConnect(absl::StrCat("127.0.0.1:", ntohs(address.sin_port)));
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
  close(fd);
}

TEST(ConnectClientTest, AServerThatIsNoStore) {
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  const auto queue = builder.AddCompletionQueue();
  const auto server = builder.BuildAndStart();
  const absl::Status status = TryConnect(absl::StrCat("127.0.0.1:", port));
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()), HasSubstr("no store answers"));
  server->Shutdown(std::chrono::system_clock::now());
  queue->Shutdown();
  void* tag = nullptr;
  bool ok = false;
  while (queue->Next(&tag, &ok)) {
  }
}

class RestartTest : public ::testing::Test {
 protected:
  absl::StatusOr<AttendAnswer> Attend(absl::Duration timeout) {
    const std::vector<float> queries(4 * 16);
    const AttendItem item{.session_id = "s", .layer = 1, .queries = queries};
    auto answers = client_->Attend({&item, 1}, absl::Now() + timeout);
    if (!answers.ok()) return answers.status();
    if (!answers->front().status.ok()) return answers->front().status;
    return answers->front();
  }

  absl::Status Open() {
    return client_
        ->OpenSession({.session_id = "s", .fingerprint = TestFingerprint(), .stored_layers = {1}})
        .status();
  }

  std::unique_ptr<StoreServer> server_ = StartStore("127.0.0.1:0");
  const std::string address_ = server_->address();
  std::unique_ptr<Client> client_ = *ConnectClient({.address = address_});
};

TEST_F(RestartTest, CallsFailWhileTheStoreIsAwayAndGoThroughAfterItsReturn) {
  ASSERT_TRUE(Open().ok());
  const auto before = Attend(absl::Seconds(10));
  ASSERT_TRUE(before.ok()) << before.status();
  auto stream = client_->OpenAppendStream();
  ASSERT_TRUE(stream.ok());
  std::mt19937_64 random(1);
  const TestLayer layer(10, random);

  server_ = nullptr;
  for (int i = 0; i < 3; ++i) {
    const absl::Time start = absl::Now();
    const absl::Status status = Attend(absl::Seconds(2)).status();
    EXPECT_TRUE(absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status)) << status;
    EXPECT_LT(absl::Now() - start, absl::Seconds(4));
  }
  EXPECT_EQ(client_->ListSessions().status().code(), absl::StatusCode::kUnavailable);
  (void)(*stream)->Append(layer.Batch("s", 1, 0, 10));
  EXPECT_EQ((*stream)->Flush(absl::Now() + absl::Seconds(10)).status().code(),
            absl::StatusCode::kUnavailable);

  server_ = StartStore(address_);
  absl::Status status = absl::UnavailableError("");
  for (const absl::Time end = absl::Now() + absl::Seconds(15);
       absl::IsUnavailable(status) && absl::Now() < end; absl::SleepFor(absl::Milliseconds(20))) {
    status = Attend(absl::Seconds(2)).status();
  }
  // The new store has forgotten what the old one held in memory, and says so.
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound) << status;
  ASSERT_TRUE(Open().ok());
  const auto after = Attend(absl::Seconds(10));
  ASSERT_TRUE(after.ok()) << after.status();
  EXPECT_NE(after->boot_id, before->boot_id);
  stream = client_->OpenAppendStream();
  ASSERT_TRUE((*stream)->Append(layer.Batch("s", 1, 0, 10)).ok());
  EXPECT_EQ((*stream)->Flush(absl::Now() + absl::Seconds(10))->watermark, 10);
}

TEST_F(RestartTest, AClientMayBeDestroyedAfterItsStore) {
  ASSERT_TRUE(Open().ok());
  ASSERT_TRUE(Attend(absl::Seconds(10)).ok());
  server_ = nullptr;
  client_ = nullptr;
}

}  // namespace
}  // namespace attic
