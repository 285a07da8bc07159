#include "server/cluster/etcd/etcd_client.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <functional>
#include <map>
#include <random>
#include <thread>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "tests/unit/cluster/etcd/etcd_server.h"

namespace attic {
namespace {

class EtcdClientTest : public testing::Test {
 protected:
  void SetUp() override {
    auto server = EtcdServer::Start();
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    client_ = NewClient(server_->ClientOptions());
  }

  static std::unique_ptr<EtcdClient> NewClient(const EtcdOptions& options) {
    auto client = EtcdClient::Create(options);
    EXPECT_TRUE(client.ok()) << client.status();
    return *std::move(client);
  }

  // The result of the first call that does not find etcd unreachable.
  static absl::Status Until(const std::function<absl::Status()>& call) {
    const absl::Time deadline = absl::Now() + absl::Seconds(20);
    absl::Status status = call();
    while (absl::IsUnavailable(status) && absl::Now() < deadline) {
      absl::SleepFor(absl::Milliseconds(10));
      status = call();
    }
    return status;
  }

  std::unique_ptr<EtcdServer> server_;
  std::unique_ptr<EtcdClient> client_;
};

TEST_F(EtcdClientTest, PutsAndGets) {
  const auto none = client_->Get("a");
  ASSERT_TRUE(none.ok()) << none.status();
  EXPECT_FALSE(none->entry.has_value());
  const std::string bytes("\0\xff\n", 3);
  const auto first = client_->Put("a", bytes);
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ(*first, none->revision + 1);
  ASSERT_TRUE(client_->Put("a", "second").ok());
  const auto entry = client_->Get("a");
  ASSERT_TRUE(entry.ok() && entry->entry.has_value());
  EXPECT_EQ(entry->entry->value, "second");
  EXPECT_EQ(entry->entry->create_revision, *first);
  EXPECT_EQ(entry->entry->mod_revision, *first + 1);
  EXPECT_EQ(entry->entry->version, 2);
  EXPECT_EQ(entry->revision, *first + 1);
  // Another implementation sees the same.
  EXPECT_EQ(server_->Ctl("get a --print-value-only").value_or("failed"), "second\n");

  EXPECT_TRUE(client_->Delete("a").value_or(false));
  EXPECT_FALSE(client_->Delete("a").value_or(true));
  EXPECT_FALSE(client_->Get("a")->entry.has_value());
}

TEST_F(EtcdClientTest, ListsLikeAMapAtOneRevision) {
  const uint32_t seed = std::random_device()();
  SCOPED_TRACE(absl::StrCat("seed ", seed));
  std::mt19937 random(seed);
  std::map<std::string, std::string> oracle;
  int64_t revision = 0;
  // Over three pages, by way of transactions; keys beside the prefix on both sides.
  for (int round = 0; round < 10; ++round) {
    EtcdTransaction transaction;
    std::map<std::string, std::string> changes;
    for (int i = 0; i < 120; ++i) {
      changes[absl::StrCat("p/", random() % 2000)] = absl::StrCat(random());
    }
    for (const auto& [key, value] : changes) {
      if (oracle.contains(key)) {
        transaction.deletes.push_back(key);
        oracle.erase(key);
      } else {
        transaction.puts.push_back({.key = key, .value = value});
        oracle[key] = value;
      }
    }
    const auto commit = client_->Commit(transaction);
    ASSERT_TRUE(commit.ok()) << commit.status();
    EXPECT_TRUE(commit->succeeded);
    revision = commit->revision;
  }
  ASSERT_TRUE(client_->Put("p", "before").ok());
  ASSERT_TRUE(client_->Put("p0", "after").ok());
  ASSERT_GT(oracle.size(), 2 * kEtcdListPageKeys);

  const auto list = client_->List("p/");
  ASSERT_TRUE(list.ok()) << list.status();
  EXPECT_EQ(list->revision, revision + 2);
  std::map<std::string, std::string> listed;
  for (const EtcdKeyValue& entry : list->entries) listed[entry.key] = entry.value;
  EXPECT_EQ(listed.size(), list->entries.size());
  EXPECT_EQ(listed, oracle);
  EXPECT_TRUE(client_->List("q/")->entries.empty());
}

TEST_F(EtcdClientTest, CommitsOnlyWhatComparesEqual) {
  using Target = EtcdCompare::Target;
  const EtcdTransaction create = {
      .compares = {{.target = Target::kCreateRevision, .key = "k", .number = 0}},
      .puts = {{.key = "k", .value = "1"}}};
  const auto created = client_->Commit(create);
  ASSERT_TRUE(created.ok()) << created.status();
  EXPECT_TRUE(created->succeeded);
  const auto again = client_->Commit(create);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_FALSE(again->succeeded);
  EXPECT_EQ(again->revision, created->revision);

  ASSERT_TRUE(client_->Put("k", "2").ok());
  const EtcdKeyValue entry = *client_->Get("k")->entry;
  const auto commit_if = [&](Target target, int64_t number) {
    const auto commit =
        client_->Commit({.compares = {{.target = target, .key = "k", .number = number},
                                      {.target = Target::kVersion, .key = "other", .number = 0}},
                         .puts = {{.key = "seen", .value = absl::StrCat(number)}}});
    EXPECT_TRUE(commit.ok()) << commit.status();
    return commit.ok() && commit->succeeded;
  };
  EXPECT_TRUE(commit_if(Target::kCreateRevision, entry.create_revision));
  EXPECT_FALSE(commit_if(Target::kCreateRevision, entry.mod_revision));
  EXPECT_TRUE(commit_if(Target::kModRevision, entry.mod_revision));
  EXPECT_FALSE(commit_if(Target::kModRevision, entry.create_revision));
  EXPECT_TRUE(commit_if(Target::kVersion, 2));
  EXPECT_FALSE(commit_if(Target::kVersion, 1));
  EXPECT_EQ(client_->Get("seen")->entry->value, "2");
}

TEST_F(EtcdClientTest, RefusesWhatIsOverItsLimits) {
  const auto code = [](const auto& result) { return result.status().code(); };
  EXPECT_EQ(code(client_->Get("")), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(client_->List("")), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(client_->Put(std::string(kEtcdKeyBytesMax + 1, 'k'), "")),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(client_->Put("k", std::string(kEtcdValueBytesMax + 1, 'v'))),
            absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(client_->Put("k", std::string(kEtcdValueBytesMax, 'v')).ok());
  EXPECT_EQ(client_->Get("k")->entry->value.size(), kEtcdValueBytesMax);
  EtcdTransaction transaction;
  transaction.deletes.assign(kEtcdTransactionOperationsMax + 1, "k");
  EXPECT_EQ(code(client_->Commit(transaction)), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(code(client_->GrantLease(absl::ZeroDuration())), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(client_->GrantLease(absl::InfiniteDuration())),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(client_->Put("k", "v", /*lease=*/12345)), absl::StatusCode::kNotFound);
}

TEST_F(EtcdClientTest, ALeaseTakesItsKeysWithIt) {
  const auto lease = client_->GrantLease(absl::Seconds(2));
  ASSERT_TRUE(lease.ok()) << lease.status();
  EXPECT_EQ(lease->ttl, absl::Seconds(2));
  ASSERT_TRUE(client_->Put("leased", "", lease->id).ok());
  EXPECT_EQ(client_->Get("leased")->entry->lease, lease->id);
  const absl::Time kept = absl::Now();
  EXPECT_EQ(client_->KeepAlive(lease->id).value_or(absl::ZeroDuration()), absl::Seconds(2));
  while (client_->Get("leased")->entry.has_value()) {
    ASSERT_LT(absl::Now(), kept + absl::Seconds(20));
    absl::SleepFor(absl::Milliseconds(20));
  }
  EXPECT_GE(absl::Now() - kept, absl::Seconds(1.9));
  EXPECT_EQ(client_->KeepAlive(lease->id).value_or(absl::Seconds(1)), absl::ZeroDuration());
  EXPECT_EQ(client_->RevokeLease(lease->id).code(), absl::StatusCode::kNotFound);

  const auto revoked = client_->GrantLease(absl::Seconds(60));
  ASSERT_TRUE(client_->Put("leased", "", revoked->id).ok());
  EXPECT_TRUE(client_->RevokeLease(revoked->id).ok());
  EXPECT_FALSE(client_->Get("leased")->entry.has_value());
}

TEST_F(EtcdClientTest, CallsEndWhileEtcdHangsAndGoOnAfterwards) {
  EtcdOptions options = server_->ClientOptions();
  options.connect_timeout = options.call_timeout = absl::Milliseconds(300);
  const auto client = NewClient(options);
  ASSERT_TRUE(client->Put("k", "v").ok());
  const auto lease = client->GrantLease(absl::Seconds(60));
  ASSERT_TRUE(lease.ok());

  server_->Pause();
  const std::vector<std::function<absl::Status()>> calls = {
      [&] { return client->Get("k").status(); },
      [&] { return client->Put("k", "w").status(); },
      [&] { return client->Commit({.deletes = {"other"}}).status(); },
      [&] { return client->GrantLease(absl::Seconds(2)).status(); },
      [&] { return client->RevokeLease(1); },
      [&] { return client->KeepAlive(lease->id).status(); },
      [&] { return client->List("k").status(); }};
  for (const auto& call : calls) {
    const absl::Time begin = absl::Now();
    const absl::Status status = call();
    EXPECT_TRUE(absl::IsDeadlineExceeded(status) || absl::IsUnavailable(status)) << status;
    EXPECT_LT(absl::Now() - begin, absl::Seconds(2));
  }
  // The first call finds the connection alive and waits for an answer; its deadline ends it.
  const absl::Time begin = absl::Now();
  EXPECT_FALSE(client->KeepAlive(lease->id, absl::Milliseconds(50)).ok());
  EXPECT_LT(absl::Now() - begin, absl::Seconds(1));

  server_->Resume();
  EXPECT_TRUE(Until([&] { return client->Put("k", "after").status(); }).ok());
  EXPECT_EQ(client_->Get("k")->entry->value, "after");
  EXPECT_EQ(client->KeepAlive(lease->id).value_or(absl::ZeroDuration()), absl::Seconds(60));
}

TEST_F(EtcdClientTest, CallsGoOnAfterARestart) {
  ASSERT_TRUE(client_->Put("k", "v").ok());
  server_->Kill();
  const absl::Time begin = absl::Now();
  EXPECT_TRUE(absl::IsUnavailable(client_->Get("k").status()));
  EXPECT_TRUE(absl::IsUnavailable(client_->Get("k").status()));
  EXPECT_LT(absl::Now() - begin, absl::Seconds(4));  // refused, not waited for
  ASSERT_TRUE(server_->Restart().ok());
  absl::StatusOr<EtcdEntry> entry;
  EXPECT_TRUE(Until([&] { return (entry = client_->Get("k")).status(); }).ok());
  ASSERT_TRUE(entry->entry.has_value());
  EXPECT_EQ(entry->entry->value, "v");
}

TEST_F(EtcdClientTest, AWipeLosesKeysAndLeases) {
  const auto lease = client_->GrantLease(absl::Seconds(60));
  ASSERT_TRUE(client_->Put("k", "v", lease->id).ok());
  ASSERT_TRUE(server_->Wipe().ok());
  absl::StatusOr<absl::Duration> left;
  EXPECT_TRUE(Until([&] { return (left = client_->KeepAlive(lease->id)).status(); }).ok());
  EXPECT_EQ(*left, absl::ZeroDuration());
  EXPECT_FALSE(client_->Get("k")->entry.has_value());
}

TEST_F(EtcdClientTest, GoesOnToTheNextEndpoint) {
  auto second = EtcdServer::Start();
  ASSERT_TRUE(second.ok()) << second.status();
  EtcdOptions options = server_->ClientOptions();
  options.endpoints.push_back((*second)->endpoint());
  options.call_timeout = absl::Milliseconds(500);
  const auto client = NewClient(options);
  const auto on_second = NewClient((*second)->ClientOptions());
  ASSERT_TRUE(client->Put("k", "first").ok());
  ASSERT_TRUE(on_second->Put("k", "second").ok());

  server_->Pause();  // a read that was lost goes to the next one by itself
  EXPECT_EQ(client->Get("k")->entry->value, "second");
  (*second)->Kill();
  server_->Resume();
  // A write may have been lost with the connection, but the next goes elsewhere.
  if (!client->Put("k", "again").ok()) {
    EXPECT_TRUE(client->Put("k", "again").ok());
  }
  EXPECT_EQ(client_->Get("k")->entry->value, "again");
}

TEST_F(EtcdClientTest, ThreadsShareAClientWhileEtcdComesAndGoes) {
  constexpr int kThreads = 4;
  std::atomic<bool> stop = false;
  std::atomic<int> failures = 0;
  std::array<std::atomic<int64_t>, kThreads> acknowledged = {};  // the last number a thread put
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      const std::string key = absl::StrCat("t/", t);
      for (int64_t number = 1; !stop; ++number) {
        if (client_->Put(key, absl::StrCat(number)).ok()) {
          acknowledged[t] = number;
        } else {
          ++failures;
        }
        (void)client_->List("t/");
      }
    });
  }
  const auto wait_for_all = [&](int64_t number) {
    for (const std::atomic<int64_t>& last : acknowledged) {
      while (last < number) std::this_thread::yield();
    }
  };
  for (int i = 0; i < 2; ++i) {
    wait_for_all(10 * i + 10);
    const int before = failures;
    server_->Kill();
    while (failures < before + kThreads) std::this_thread::yield();
    EXPECT_TRUE(server_->Restart().ok());
  }
  wait_for_all(*std::max_element(acknowledged.begin(), acknowledged.end()) + 1);
  stop = true;
  for (std::thread& thread : threads) thread.join();
  for (int t = 0; t < kThreads; ++t) {
    // Those after the last acknowledged one may have been done, too.
    const auto entry = client_->Get(absl::StrCat("t/", t));
    ASSERT_TRUE(entry.ok() && entry->entry.has_value()) << entry.status();
    int64_t number = 0;
    ASSERT_TRUE(absl::SimpleAtoi(entry->entry->value, &number));
    EXPECT_GE(number, acknowledged[t]);
  }
}

TEST(EtcdClientOptionsTest, NamesWhatIsWrong) {
  const auto create = [](const EtcdOptions& options) {
    return EtcdClient::Create(options).status();
  };
  const EtcdOptions good = {.endpoints = {"localhost:1"}};
  EXPECT_TRUE(create(good).ok());
  for (const std::function<void(EtcdOptions&)>& spoil :
       std::vector<std::function<void(EtcdOptions&)>>{
           [](EtcdOptions& o) { o.endpoints.clear(); },
           [](EtcdOptions& o) { o.endpoints = {"http://localhost:1"}; },
           [](EtcdOptions& o) { o.endpoints = {"localhost"}; },
           [](EtcdOptions& o) { o.endpoints.assign(kEtcdEndpointsMax + 1, "localhost:1"); },
           [](EtcdOptions& o) { o.call_timeout = absl::ZeroDuration(); },
           [](EtcdOptions& o) { o.connect_timeout = -absl::Seconds(1); },
           [](EtcdOptions& o) { o.user = std::string("u"); },
           [](EtcdOptions& o) { o.cert_file = o.key_file = "/dev/null"; },
           [](EtcdOptions& o) { o.ca_file = o.cert_file = std::string("f"); }}) {
    EtcdOptions bad = good;
    spoil(bad);
    EXPECT_EQ(create(bad).code(), absl::StatusCode::kInvalidArgument) << create(bad);
  }
  EtcdOptions missing = good;
  missing.ca_file = "/nowhere/ca.crt";
  EXPECT_EQ(create(missing).code(), absl::StatusCode::kFailedPrecondition) << create(missing);
}

}  // namespace
}  // namespace attic
