// A cluster of real servers over real connections: what the cluster in the process stands for.
#include <gtest/gtest.h>

#include <random>

#include "absl/strings/str_cat.h"
#include "client/cpp/client.h"
#include "server/service/store_server.h"
#include "tests/unit/client/client_test_data.h"

namespace attic {
namespace {

constexpr absl::Duration kSoon = absl::Seconds(30);

// What the nodes of one process know together.
struct KnownMap {
  Mutex mutex;
  CondVar changed;
  ClusterMapPtr map ATTIC_GUARDED_BY(mutex);

  void Set(ClusterMap next) {
    MutexLock lock(mutex);
    map = std::make_shared<const ClusterMap>(std::move(next));
    changed.NotifyAll();
  }
};

class TestMembership final : public Membership {
 public:
  TestMembership(std::string node_id, std::shared_ptr<KnownMap> known)
      : node_id_(std::move(node_id)), known_(std::move(known)) {}
  const std::string& node_id() const override { return node_id_; }
  ClusterMapPtr map() const override {
    MutexLock lock(known_->mutex);
    return known_->map;
  }
  ClusterMapPtr WaitForNewer(uint64_t epoch, absl::Time deadline) override {
    MutexLock lock(known_->mutex);
    while (known_->map == nullptr || known_->map->epoch <= epoch) {
      if (absl::Now() >= deadline) return nullptr;
      known_->changed.WaitFor(known_->mutex, std::chrono::milliseconds(20));
    }
    return known_->map;
  }
  void Offer(const ClusterMapPtr&) override {}
  void Report(const SyncReport&) override {}
  bool controlling() const override { return false; }
  absl::Status Change(const std::string&, NodeChange, absl::Time) override {
    return absl::FailedPreconditionError("none");
  }
  absl::Status Rebalance(absl::Time) override { return absl::FailedPreconditionError("none"); }
  void Leave(absl::Time) override {}

 private:
  const std::string node_id_;
  const std::shared_ptr<KnownMap> known_;
};

class GrpcClusterTest : public ::testing::Test {
 protected:
  void Start(size_t nodes) {
    map_ = {.cluster = "test", .epoch = 1, .replicas_default = 2};
    for (size_t n = 0; n < nodes; ++n) {
      const std::string id = absl::StrCat("n", n);
      StoreServerOptions options{.listen_address = "127.0.0.1:0", .store = SmallStoreOptions()};
      options.cluster.join = [this, id](const NodeIdentity& identity) {
        map_.nodes.push_back(
            {.id = id, .address = identity.bound_address, .boot_id = identity.boot_id});
        return std::make_shared<TestMembership>(id, known_);
      };
      auto server = StoreServer::Start(options);
      ASSERT_TRUE(server.ok()) << server.status();
      servers_.push_back(*std::move(server));
    }
    for (uint32_t s = 0; s < 64; ++s) {
      const auto first = static_cast<uint32_t>(s % nodes);
      const auto second = static_cast<uint32_t>((s + 1) % nodes);
      map_.slots.push_back({.replicas = {first, second}, .incoming = {}, .epoch = 1});
    }
    ASSERT_TRUE(ValidateClusterMap(map_).ok());
    known_->Set(map_);
  }
  void Kill(size_t node) {
    servers_[node]->Drain(absl::Now());
    servers_[node].reset();
    ++map_.epoch;
    map_.nodes[node].state = NodeState::kDown;
    map_.nodes[node].state_epoch = map_.epoch;
    known_->Set(map_);
  }

  std::shared_ptr<KnownMap> known_ = std::make_shared<KnownMap>();
  ClusterMap map_;
  std::vector<std::unique_ptr<StoreServer>> servers_;
};

TEST_F(GrpcClusterTest, AnswersAreThoseOfAllTokensWhileANodeGoes) {
  const auto seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937_64 random(seed);
  Start(3);
  // The second address is no node at all; the first leads to all of them.
  auto client = ConnectClient({.address = servers_[1]->address() + ",127.0.0.1:1"});
  ASSERT_TRUE(client.ok()) << client.status();
  const auto opened = (*client)->OpenSession(
      {.session_id = "a", .fingerprint = TestFingerprint(), .stored_layers = {0, 2}});
  ASSERT_TRUE(opened.ok()) << opened.status();
  const TestLayer layers[] = {TestLayer(2000, random), TestLayer(2000, random)};
  auto stream = (*client)->OpenAppendStream();
  ASSERT_TRUE(stream.ok());
  int64_t held = 0;
  for (int step = 0; step < 20; ++step) {
    const size_t count = 1 + random() % 100;
    for (const uint32_t i : {0, 1}) {
      ASSERT_EQ((*stream)->Append(layers[i].Batch("a", i * 2, held, count)), absl::OkStatus());
    }
    held += static_cast<int64_t>(count);
    if (step == 10) Kill(2);
    ASSERT_EQ((*stream)->Flush(absl::Now() + kSoon).status(), absl::OkStatus());
    for (const uint32_t i : {0, 1}) {
      const std::vector<float> queries = RandomFloats(4 * 16, random);
      const AttendItem item{.session_id = "a",
                            .layer = i * 2,
                            .min_watermark = held,
                            .mode = AttendMode::kExact,
                            .queries = queries};
      const auto answers = (*client)->Attend({&item, 1}, absl::Now() + kSoon);
      ASSERT_TRUE(answers.ok()) << answers.status();
      ASSERT_TRUE(answers->front().status.ok()) << answers->front().status;
      EXPECT_EQ(answers->front().range, (PositionRange{.begin = 0, .end = held}));
      std::vector<double> log_sum_exp;
      const auto want = layers[i].Oracle(queries, {.begin = 0, .end = held}, log_sum_exp);
      EXPECT_LT(RelativeError(answers->front().output, want), 1e-5);
    }
  }
  const auto described = (*client)->DescribeSession("a");
  ASSERT_TRUE(described.ok()) << described.status();
  EXPECT_EQ(described->watermark, held);
  const auto listed = (*client)->ListSessions();
  ASSERT_TRUE(listed.ok()) << listed.status();
  EXPECT_EQ(listed->size(), 1);
  EXPECT_TRUE((*client)->PlanSession("a").ok());
  EXPECT_TRUE((*client)->Status().ok());
  ASSERT_EQ((*client)->CloseSession("a"), absl::OkStatus());
  EXPECT_TRUE(absl::IsNotFound((*client)->DescribeSession("a").status()));
}

TEST_F(GrpcClusterTest, ASessionIsExportedWhileANodeGoesAndImported) {
  const auto seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937_64 random(seed);
  Start(3);
  auto client = ConnectClient({.address = servers_[1]->address()});
  ASSERT_TRUE(client.ok()) << client.status();
  ASSERT_TRUE(
      (*client)
          ->OpenSession(
              {.session_id = "a", .fingerprint = TestFingerprint(), .stored_layers = {0, 2}})
          .ok());
  const TestLayer layers[] = {TestLayer(3000, random), TestLayer(3000, random)};
  auto stream = (*client)->OpenAppendStream();
  ASSERT_TRUE(stream.ok());
  for (const uint32_t i : {0, 1}) {
    ASSERT_EQ((*stream)->Append(layers[i].Batch("a", i * 2, 0, 3000)), absl::OkStatus());
  }
  ASSERT_EQ((*stream)->Flush(absl::Now() + kSoon).status(), absl::OkStatus());
  std::string bytes;
  const absl::Status exported =
      (*client)->ExportSession("a", absl::Now() + kSoon, [&](std::string_view piece, uint64_t) {
        bytes.append(piece);
        if (bytes.size() > 300000 && servers_[2] != nullptr) Kill(2);
        return absl::OkStatus();
      });
  ASSERT_EQ(exported, absl::OkStatus());
  ASSERT_EQ(servers_[2], nullptr);
  const auto import = [&](const std::string& file, const std::string& id) {
    size_t at = 0;
    return (*client)->ImportSession({.session_id = id}, absl::Now() + kSoon, [&] {
      const std::string piece = file.substr(at, 1 << 20);
      at += piece.size();
      return absl::StatusOr<std::string>(piece);
    });
  };
  const auto made = import(bytes, "b");
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_EQ(made->watermark, 3000);
  for (const uint32_t i : {0, 1}) {
    const std::vector<float> queries = RandomFloats(4 * 16, random);
    const AttendItem item{
        .session_id = "b", .layer = i * 2, .mode = AttendMode::kExact, .queries = queries};
    const auto answers = (*client)->Attend({&item, 1}, absl::Now() + kSoon);
    ASSERT_TRUE(answers.ok() && answers->front().status.ok());
    std::vector<double> log_sum_exp;
    const auto want = layers[i].Oracle(queries, {.begin = 0, .end = 3000}, log_sum_exp);
    EXPECT_LT(RelativeError(answers->front().output, want), 1e-5);
  }
  EXPECT_TRUE(absl::IsAlreadyExists(import(bytes, "b").status()));
  EXPECT_TRUE(absl::IsDataLoss(import(bytes.substr(0, bytes.size() / 2), "c").status()));
  EXPECT_TRUE(absl::IsNotFound((*client)->DescribeSession("c").status()));
}

TEST_F(GrpcClusterTest, AListOfAddressesMayLeadToASingleStore) {
  auto server = StoreServer::Start({.listen_address = "127.0.0.1:0", .store = SmallStoreOptions()});
  ASSERT_TRUE(server.ok());
  auto client = ConnectClient({.address = "127.0.0.1:1," + (*server)->address()});
  ASSERT_TRUE(client.ok()) << client.status();
  const auto opened = (*client)->OpenSession(
      {.session_id = "a", .fingerprint = TestFingerprint(), .stored_layers = {0}});
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_FALSE(opened->placement.has_value());
}

TEST_F(GrpcClusterTest, NobodyThereIsUnavailable) {
  const auto client = ConnectClient(
      {.address = "127.0.0.1:1,127.0.0.1:2", .connect_timeout = absl::Milliseconds(300)});
  EXPECT_TRUE(absl::IsUnavailable(client.status())) << client.status();
}

}  // namespace
}  // namespace attic
