#include "server/cluster/etcd/etcd_watch.h"

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/cluster/etcd/etcd_client.h"
#include "tests/unit/cluster/etcd/etcd_server.h"
#include "tests/unit/cluster/etcd/event_log.h"

namespace attic {
namespace {

class EtcdWatchTest : public testing::Test {
 protected:
  void SetUp() override {
    auto server = EtcdServer::Start();
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    EtcdOptions options = server_->ClientOptions();
    options.call_timeout = absl::Seconds(1);
    auto client = EtcdClient::Create(options);
    ASSERT_TRUE(client.ok()) << client.status();
    client_ = *std::move(client);
  }

  static std::string Text(const std::vector<EtcdEvent>& events) {
    std::string text;
    for (const EtcdEvent& event : events) {
      absl::StrAppend(&text, event.deleted ? "-" : "+", event.entry.key, "=", event.entry.value,
                      " ");
    }
    return text;
  }

  std::unique_ptr<EtcdServer> server_;
  std::unique_ptr<EtcdClient> client_;
};

TEST_F(EtcdWatchTest, ReportsChangesInOrder) {
  EventLog log;
  const auto watch = client_->Watch("p/", 1, log.Handler());
  const int64_t first = client_->Put("p/a", "1").value_or(0);
  ASSERT_TRUE(client_->Put("q", "not watched").ok());
  ASSERT_TRUE(client_->Put("p/b", "2").ok());
  ASSERT_TRUE(client_->Put("p/a", "3").ok());
  ASSERT_TRUE(client_->Delete("p/b").ok());
  const auto commit = client_->Commit({.puts = {{.key = "p/c", .value = "4"}}, .deletes = {"p/a"}});
  ASSERT_TRUE(commit.ok());
  const std::vector<EtcdEvent> events = log.WaitForEvents(6);
  EXPECT_EQ(Text(events), "+p/a=1 +p/b=2 +p/a=3 -p/b= +p/c=4 -p/a= ");
  ASSERT_EQ(events.size(), 6);
  EXPECT_EQ(events[0].entry.mod_revision, first);
  EXPECT_EQ(events[2].entry.create_revision, first);
  EXPECT_EQ(events[2].entry.version, 2);
  EXPECT_EQ(events[5].entry.mod_revision, commit->revision);
  EXPECT_TRUE(log.end().ok()) << log.end();
}

TEST_F(EtcdWatchTest, BeginsAtARevision) {
  ASSERT_TRUE(client_->Put("p/a", "1").ok());
  ASSERT_TRUE(client_->Put("p/a", "2").ok());
  const auto list = client_->List("p/");
  ASSERT_TRUE(list.ok());
  ASSERT_TRUE(client_->Put("p/a", "3").ok());
  EventLog log;
  const auto watch = client_->Watch("p/", list->revision + 1, log.Handler());
  EXPECT_EQ(Text(log.WaitForEvents(1)), "+p/a=3 ");
}

TEST_F(EtcdWatchTest, GoesOnWhileNothingChanges) {
  EventLog log;
  const auto watch = client_->Watch("p/", 1, log.Handler());
  // Without an answer to its questions it would end after half a second and another one.
  absl::SleepFor(absl::Seconds(3));
  ASSERT_TRUE(client_->Put("p/a", "1").ok());
  EXPECT_EQ(Text(log.WaitForEvents(1)), "+p/a=1 ");
  EXPECT_TRUE(log.end().ok()) << log.end();
}

TEST_F(EtcdWatchTest, TellsThatHistoryIsGoneOrNotYetThere) {
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(client_->Put("p/a", "v").ok());
  const int64_t revision = client_->Get("p/a")->revision;
  ASSERT_TRUE(server_->Ctl(absl::StrCat("compaction ", revision)).ok());
  EventLog gone;
  const auto watch = client_->Watch("p/", 2, gone.Handler());
  EXPECT_EQ(gone.WaitForEnd().code(), absl::StatusCode::kOutOfRange) << gone.end();
  EXPECT_TRUE(gone.WaitForEvents(0).empty());
  EventLog ahead;
  const auto other = client_->Watch("p/", revision + 2, ahead.Handler());
  EXPECT_EQ(ahead.WaitForEnd().code(), absl::StatusCode::kOutOfRange) << ahead.end();
}

TEST_F(EtcdWatchTest, NoticesAHangByDeadline) {
  EventLog log;
  const auto watch = client_->Watch("p/", 1, log.Handler());
  ASSERT_TRUE(client_->Put("p/a", "1").ok());
  ASSERT_EQ(log.WaitForEvents(1).size(), 1);
  const absl::Time begin = absl::Now();
  server_->Pause();
  EXPECT_EQ(log.WaitForEnd().code(), absl::StatusCode::kDeadlineExceeded) << log.end();
  EXPECT_LT(absl::Now() - begin, absl::Seconds(4));
  server_->Resume();
}

TEST_F(EtcdWatchTest, EndsWithEtcdAndCanBeginAgain) {
  ASSERT_TRUE(client_->Put("p/a", "1").ok());
  EventLog log;
  const auto watch = client_->Watch("p/", 1, log.Handler());
  ASSERT_EQ(log.WaitForEvents(1).size(), 1);
  server_->Kill();
  EXPECT_EQ(log.WaitForEnd().code(), absl::StatusCode::kUnavailable) << log.end();
  EventLog none;
  const auto refused = client_->Watch("p/", 1, none.Handler());
  EXPECT_EQ(none.WaitForEnd().code(), absl::StatusCode::kUnavailable) << none.end();

  ASSERT_TRUE(server_->Restart().ok());
  absl::StatusOr<EtcdEntries> list = client_->List("p/");
  if (!list.ok()) list = client_->List("p/");  // the first may find the old connection
  ASSERT_TRUE(list.ok()) << list.status();
  EXPECT_EQ(list->entries.size(), 1);
  EventLog again;
  const auto next = client_->Watch("p/", list->revision + 1, again.Handler());
  ASSERT_TRUE(client_->Delete("p/a").ok());
  EXPECT_EQ(Text(again.WaitForEvents(1)), "-p/a= ");
}

TEST_F(EtcdWatchTest, ManyChangesAllArrive) {
  constexpr int kRounds = 20;
  EventLog log;
  const auto watch = client_->Watch("p/", 1, log.Handler());
  for (int round = 0; round < kRounds; ++round) {
    EtcdTransaction transaction;
    for (int i = 0; i < 100; ++i) {
      transaction.puts.push_back({.key = absl::StrCat("p/", i), .value = absl::StrCat(round)});
    }
    ASSERT_TRUE(client_->Commit(transaction).ok());
  }
  const std::vector<EtcdEvent> events = log.WaitForEvents(100 * kRounds);
  ASSERT_EQ(events.size(), 100 * kRounds);
  for (size_t i = 0; i < events.size(); ++i) {
    EXPECT_EQ(events[i].entry.value, absl::StrCat(i / 100));
    EXPECT_GE(events[i].entry.mod_revision, events[i == 0 ? 0 : i - 1].entry.mod_revision);
  }
}

TEST_F(EtcdWatchTest, IsDestroyedAtAnyTime) {
  for (int i = 0; i < 50; ++i) {
    EventLog log;
    auto watch = client_->Watch("p/", 1, log.Handler());
    if (i % 3 == 1) {
      ASSERT_TRUE(client_->Put("p/a", "v").ok());
    }
    if (i % 3 == 2) log.WaitForEvents(1);
    watch = nullptr;
    EXPECT_TRUE(log.end().ok()) << log.end();
  }
  server_->Pause();
  EventLog log;
  const absl::Time begin = absl::Now();
  { const auto watch = client_->Watch("p/", 1, log.Handler()); }
  EXPECT_LT(absl::Now() - begin, absl::Seconds(7));
}

}  // namespace
}  // namespace attic
