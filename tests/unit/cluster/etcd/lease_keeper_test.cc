#include "server/cluster/etcd/lease_keeper.h"

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "tests/unit/cluster/etcd/etcd_server.h"

namespace attic {
namespace {

class LeaseKeeperTest : public testing::Test {
 protected:
  void SetUp() override {
    auto server = EtcdServer::Start();
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    observer_ = NewClient(absl::Seconds(5));
    client_ = NewClient(absl::Milliseconds(500));
  }

  std::unique_ptr<EtcdClient> NewClient(absl::Duration timeout) {
    EtcdOptions options = server_->ClientOptions();
    options.connect_timeout = options.call_timeout = timeout;
    auto client = EtcdClient::Create(options);
    EXPECT_TRUE(client.ok()) << client.status();
    return *std::move(client);
  }

  LeaseKeeperHandler Handler() {
    return {.on_granted =
                [this](int64_t lease) {
                  const absl::Status status = client_->Put("node", "here", lease).status();
                  MutexLock lock(mutex_);
                  if (status.ok()) ++registered_;
                  changed_.NotifyAll();
                  return status;
                },
            .on_lost =
                [this](int64_t) {
                  MutexLock lock(mutex_);
                  ++lost_;
                  changed_.NotifyAll();
                }};
  }

  // Waits until there were that many; at most half a minute.
  bool Await(int registered, int lost) {
    const absl::Time deadline = absl::Now() + absl::Seconds(30);
    MutexLock lock(mutex_);
    while (registered_ < registered || lost_ < lost) {
      const absl::Duration left = deadline - absl::Now();
      if (left <= absl::ZeroDuration()) return false;
      changed_.WaitFor(mutex_, absl::ToChronoNanoseconds(left));
    }
    return registered_ == registered && lost_ == lost;
  }

  std::unique_ptr<EtcdServer> server_;
  std::unique_ptr<EtcdClient> observer_;
  std::unique_ptr<EtcdClient> client_;

  Mutex mutex_;
  CondVar changed_;
  int registered_ ATTIC_GUARDED_BY(mutex_) = 0;
  int lost_ ATTIC_GUARDED_BY(mutex_) = 0;
};

TEST_F(LeaseKeeperTest, KeepsALeaseBeyondItsTimeAndReleasesIt) {
  LeaseKeeper keeper(*client_, absl::Seconds(2), Handler());
  ASSERT_TRUE(Await(1, 0));
  const int64_t lease = keeper.lease();
  EXPECT_NE(lease, 0);
  absl::SleepFor(absl::Seconds(4));
  EXPECT_EQ(keeper.lease(), lease);
  EXPECT_TRUE(keeper.last_status().ok()) << keeper.last_status();
  const auto entry = observer_->Get("node");
  ASSERT_TRUE(entry.ok() && entry->entry.has_value());
  EXPECT_EQ(entry->entry->lease, lease);
  EXPECT_TRUE(keeper.Release().ok());
  EXPECT_EQ(keeper.lease(), 0);
  EXPECT_FALSE(observer_->Get("node")->entry.has_value());
  EXPECT_TRUE(Await(1, 0));
}

TEST_F(LeaseKeeperTest, EndsByItselfWhenTheKeeperIsGone) {
  {
    LeaseKeeper keeper(*client_, absl::Seconds(1), Handler());
    ASSERT_TRUE(Await(1, 0));
  }
  EXPECT_TRUE(observer_->Get("node")->entry.has_value());
  const absl::Time deadline = absl::Now() + absl::Seconds(20);
  while (observer_->Get("node")->entry.has_value()) {
    ASSERT_LT(absl::Now(), deadline);
    absl::SleepFor(absl::Milliseconds(20));
  }
}

TEST_F(LeaseKeeperTest, LosesTheLeaseOnTimeWhileEtcdHangs) {
  LeaseKeeper keeper(*client_, absl::Seconds(2), Handler());
  ASSERT_TRUE(Await(1, 0));
  const int64_t lease = keeper.lease();
  absl::SleepFor(absl::Seconds(1));  // so that the lease was kept alive once
  server_->Pause();
  const absl::Time begin = absl::Now();  // no keepalive that succeeds is sent later
  while (true) {
    const absl::Time asked = absl::Now();
    if (keeper.lease() == 0) break;
    ASSERT_LT(asked - begin, absl::Seconds(2));
    absl::SleepFor(absl::Milliseconds(1));
  }
  EXPECT_FALSE(keeper.last_status().ok());
  EXPECT_TRUE(Await(1, 1));
  server_->Resume();
  ASSERT_TRUE(Await(2, 1));
  EXPECT_NE(keeper.lease(), 0);
  EXPECT_NE(keeper.lease(), lease);
  EXPECT_EQ(observer_->Get("node")->entry->lease, keeper.lease());
  EXPECT_EQ(observer_->KeepAlive(lease).value_or(absl::Seconds(1)), absl::ZeroDuration());
}

TEST_F(LeaseKeeperTest, RegistersAgainAfterAWipe) {
  LeaseKeeper keeper(*client_, absl::Seconds(2), Handler());
  ASSERT_TRUE(Await(1, 0));
  ASSERT_TRUE(server_->Wipe().ok());
  ASSERT_TRUE(Await(2, 1));
  EXPECT_EQ(observer_->Get("node")->entry->lease, keeper.lease());
}

// The next keepalive would be sent after 40 s.
TEST_F(LeaseKeeperTest, FindsAWipeOutAtOnceWhenAskedTo) {
  LeaseKeeper keeper(*client_, absl::Seconds(120), Handler());
  ASSERT_TRUE(Await(1, 0));
  ASSERT_TRUE(server_->Wipe().ok());
  keeper.AskNow();
  ASSERT_TRUE(Await(2, 1));
  EXPECT_EQ(observer_->Get("node")->entry->lease, keeper.lease());
}

TEST_F(LeaseKeeperTest, KeepsTheLeaseOverAShortRestart) {
  LeaseKeeper keeper(*client_, absl::Seconds(20), Handler());
  ASSERT_TRUE(Await(1, 0));
  const int64_t lease = keeper.lease();
  ASSERT_TRUE(server_->Restart().ok());
  EXPECT_EQ(keeper.lease(), lease);
  EXPECT_TRUE(Await(1, 0));
}

TEST_F(LeaseKeeperTest, TriesToRegisterUntilItSucceeds) {
  int calls = 0;  // the keeper's thread's, read after it has ended
  int64_t lease = 0;
  {
    LeaseKeeperHandler handler = Handler();
    handler.on_granted = [&, put = handler.on_granted](int64_t granted) {
      return ++calls < 3 ? absl::InternalError("not yet") : put(granted);
    };
    LeaseKeeper keeper(*client_, absl::Seconds(2), std::move(handler));
    EXPECT_TRUE(Await(1, 0));
    lease = keeper.lease();
  }
  EXPECT_EQ(calls, 3);
  EXPECT_EQ(observer_->Get("node")->entry->lease, lease);
}

}  // namespace
}  // namespace attic
