// The services of a node: calls in bulk, inventories, digests and rows, the map, and joining and
// leaving.
#include <atomic>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "grpcpp/grpcpp.h"
#include "tests/integration/node_service_fixture.h"
#include "tests/support/temporary_folder.h"

namespace attic {
namespace {

TEST_F(NodeServiceTest, CallsSucceedAndFailOnTheirOwn) {
  v1::ShardCalls calls;
  calls.set_epoch(kEpoch);
  *calls.add_calls()->mutable_open() = OpenShard("book");
  calls.add_calls()->mutable_describe()->set_session_id(ShardOf("none"));
  *calls.add_calls()->mutable_open() = OpenManifest("book");
  calls.add_calls();  // no call
  *calls.add_calls()->mutable_open() = OpenRequest("plain");
  *calls.add_calls()->mutable_open() = OpenShard("elsewhere");
  calls.mutable_calls(5)->mutable_open()->mutable_placement()->set_slot((SlotOf("elsewhere") + 1) %
                                                                        kSlots);
  *calls.add_calls()->mutable_open() = OpenShard("book", 1);
  v1::ShardResults results;
  const grpc::Status status = Call(calls, results);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(results.epoch(), kEpoch);
  EXPECT_EQ(results.boot_id(), server_->boot_id());
  ASSERT_EQ(results.results_size(), 7);
  const int expected[] = {0,
                          grpc::StatusCode::NOT_FOUND,
                          0,
                          grpc::StatusCode::INVALID_ARGUMENT,
                          grpc::StatusCode::FAILED_PRECONDITION,
                          grpc::StatusCode::INVALID_ARGUMENT,
                          0};
  for (int i = 0; i < 7; ++i) {
    EXPECT_EQ(results.results(i).error().code(), expected[i])
        << i << ": " << results.results(i).error().message();
  }
  EXPECT_EQ(results.results(0).session().session_id(), ShardOf("book"));
  EXPECT_TRUE(results.results(0).session().created());
  EXPECT_EQ(results.results(6).session().placement().kv_head(), 1u);
}

TEST_F(NodeServiceTest, ACallDoesWhatTheSessionServiceDoes) {
  MakeShard("book");
  ASSERT_EQ(Append({ShardRows("book", 0, 600)})[0].watermark(), 600);
  const std::string id = ShardOf("book");
  v1::ShardCall call;
  call.mutable_fork()->set_session_id(id);
  call.mutable_fork()->set_position(500);
  call.mutable_fork()->set_new_session_id(ShardOf("copy"));
  EXPECT_EQ(CallOne(call).session().watermark(), 500);
  call.mutable_truncate()->set_session_id(id);
  call.mutable_truncate()->set_position(512);
  EXPECT_EQ(CallOne(call).session().watermark(), 512);
  call.mutable_pin()->set_session_id(id);
  call.mutable_pin()->set_pinned(true);
  EXPECT_TRUE(CallOne(call).session().pinned());
  call.mutable_renew_lease()->set_session_id(id);
  EXPECT_EQ(CallOne(call).session().session_id(), id);
  call.mutable_flush()->set_session_id(id);
  EXPECT_EQ(CallOne(call).error().code(), grpc::StatusCode::FAILED_PRECONDITION);  // in memory
  call.mutable_describe()->set_session_id(id);
  EXPECT_EQ(CallOne(call).session().watermark(), 512);
  call.mutable_close()->set_session_id(id);
  EXPECT_EQ(CallOne(call).error().code(), 0);
  EXPECT_EQ(CallOne(call).error().code(), grpc::StatusCode::NOT_FOUND);
}

// What the message says once stands for every shard; a shard's own hashes come first.
TEST_F(NodeServiceTest, SharedHashesAndPrefixes) {
  const std::string hashes(2 * kPrefixHashBytes, 'h');
  MakeShard("book");
  ASSERT_EQ(Append({ShardRows("book", 0, 600)})[0].watermark(), 600);
  v1::ShardCalls calls;
  calls.set_epoch(kEpoch);
  calls.set_prefix_hashes(hashes);
  v1::ExtendPrefixRequest* const extend = calls.add_calls()->mutable_extend_prefix();
  extend->set_session_id(ShardOf("book"));
  v1::ShardResults results;
  ASSERT_TRUE(Call(calls, results).ok());
  ASSERT_EQ(results.results(0).error().code(), 0) << results.results(0).error().message();
  calls.clear_calls();
  for (const char* session : {"second", "third"}) {
    v1::OpenRequest* const open = calls.add_calls()->mutable_open();
    *open = OpenShard(session);
    open->set_reuse_prefix(true);
  }
  calls.mutable_calls(1)->mutable_open()->set_prefix_hashes(std::string(kPrefixHashBytes, 'x'));
  results.Clear();
  ASSERT_TRUE(Call(calls, results).ok());
  EXPECT_EQ(results.results(0).session().reused_tokens(), 512);
  EXPECT_EQ(results.results(1).session().reused_tokens(), 0);
  calls.set_prefix_hashes("odd");
  EXPECT_EQ(Call(calls, results).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(NodeServiceTest, TooManyCallsAreRefusedAndNoneIsFine) {
  v1::ShardCalls calls;
  calls.set_epoch(kEpoch);
  v1::ShardResults results;
  EXPECT_TRUE(Call(calls, results).ok());
  EXPECT_EQ(results.epoch(), kEpoch);
  for (size_t i = 0; i <= Limits{}.shard_calls_max; ++i) {
    calls.add_calls()->mutable_describe()->set_session_id("s");
  }
  const grpc::Status status = Call(calls, results);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_TRUE(absl::StrContains(status.error_message(), "shard_calls_max"));
}

// More than a page of an inventory holds.
TEST_F(NodeServiceTest, InventoryOfManyShards) {
  constexpr int kShards = 2500;
  v1::ShardCalls calls;
  calls.set_epoch(kEpoch);
  std::set<std::string> all, some;
  for (int i = 0; i < kShards; ++i) {
    const std::string session = absl::StrCat("s", i);
    *calls.add_calls()->mutable_open() = OpenShard(session);
    all.insert(ShardOf(session));
    if (SlotOf(session) == 3 || SlotOf(session) == 5) some.insert(ShardOf(session));
  }
  v1::ShardResults results;
  ASSERT_TRUE(Call(calls, results).ok());
  for (int i = 0; i < kShards; ++i) {
    ASSERT_EQ(results.results(i).error().code(), 0) << results.results(i).error().message();
    ASSERT_EQ(results.results(i).session().session_id(), ShardOf(absl::StrCat("s", i)));
  }
  ASSERT_EQ(Append({ShardRows("s7", 0, 11)})[0].watermark(), 11);
  const auto inventory = [this](const std::vector<uint32_t>& slots) {
    v1::InventoryRequest request;
    request.mutable_slots()->Add(slots.begin(), slots.end());
    const auto context = Context();
    const auto reader = shards_->Inventory(context.get(), request);
    std::set<std::string> ids;
    std::string last;
    v1::ShardInventory page;
    while (reader->Read(&page)) {
      for (const v1::ShardEntry& entry : page.entries()) {
        EXPECT_GT(entry.session_id(), last);
        last = entry.session_id();
        ids.insert(last);
        EXPECT_EQ(entry.replicas(), 2u);
        EXPECT_EQ(entry.watermark(), last == ShardOf("s7") ? 11 : 0);
      }
    }
    EXPECT_TRUE(reader->Finish().ok());
    return ids;
  };
  EXPECT_EQ(inventory({}), all);
  EXPECT_EQ(inventory({5, 3}), some);
  EXPECT_EQ(inventory({kSlots + 1}), std::set<std::string>{});
}

TEST_F(NodeServiceTest, DigestsAndRowsOfAShard) {
  MakeShard("book");
  MakeShard("twin");
  std::string keys, values;
  for (int64_t begin = 0; begin < 40'000; begin += 10'000) {
    v1::AppendRequest rows = ShardRows("book", begin, 10'000);
    keys += rows.keys();
    values += rows.values();
    v1::AppendRequest twin = rows;
    twin.set_session_id(ShardOf("twin"));
    for (const v1::AppendResponse& response : Append({rows, twin})) {
      ASSERT_EQ(response.error().code(), 0) << response.error().message();
    }
  }
  v1::DigestRequest request;
  request.set_session_id(ShardOf("book"));
  v1::DigestResponse digest, other;
  ASSERT_TRUE(shards_->Digest(Context().get(), request, &digest).ok());
  EXPECT_EQ(digest.watermark(), 40'000);
  EXPECT_EQ(digest.blocks_size(), 4);
  request.set_session_id(ShardOf("twin"));
  ASSERT_TRUE(shards_->Digest(Context().get(), request, &other).ok());
  EXPECT_EQ(digest.SerializeAsString(), other.SerializeAsString());

  v1::ReadRowsRequest range;
  range.set_session_id(ShardOf("book"));
  range.set_begin(123);
  range.set_end(39'999);
  const auto context = Context();
  const auto reader = shards_->ReadRows(context.get(), range);
  std::string read_keys, read_values;
  v1::AppendRequest rows;
  int64_t next = 123;
  int messages = 0;
  for (; reader->Read(&rows); ++messages) {
    EXPECT_EQ(rows.session_id(), ShardOf("book"));
    EXPECT_EQ(rows.layer(), kLayer);
    EXPECT_EQ(rows.begin_position(), next);
    EXPECT_LE(rows.keys().size() + rows.values().size(), 1u << 20);
    next += rows.count();
    read_keys += rows.keys();
    read_values += rows.values();
  }
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_GT(messages, 3);
  EXPECT_EQ(next, 39'999);
  EXPECT_TRUE(read_keys == keys.substr(123 * kHeadDim * 4, (39'999 - 123) * kHeadDim * 4));
  EXPECT_TRUE(read_values == values.substr(123 * kValueDim * 4, (39'999 - 123) * kValueDim * 4));

  range.set_end(40'001);
  const auto beyond = Context();
  const auto refused = shards_->ReadRows(beyond.get(), range);
  EXPECT_FALSE(refused->Read(&rows));
  EXPECT_EQ(refused->Finish().error_code(), grpc::StatusCode::OUT_OF_RANGE);
}

// Callers that leave give back what they hold.
TEST_F(NodeServiceTest, ReadersThatLeave) {
  MakeShard("book");
  for (int64_t begin = 0; begin < 160'000; begin += 16'000) {
    ASSERT_EQ(Append({ShardRows("book", begin, 16'000)})[0].error().code(), 0);
  }
  v1::ReadRowsRequest range;
  range.set_session_id(ShardOf("book"));
  range.set_end(160'000);
  const absl::Time patience = absl::Now() + absl::Seconds(60);
  for (size_t read = 0; read < 2 * SessionStore::kRowReadersMax && absl::Now() < patience;) {
    const auto context = Context();
    const auto reader = shards_->ReadRows(context.get(), range);
    v1::AppendRequest rows;
    const bool ok = reader->Read(&rows);
    context->TryCancel();
    const grpc::Status status = reader->Finish();
    if (ok) ++read;
    ASSERT_TRUE(ok || status.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED)
        << status.error_message();
  }
  EXPECT_LT(absl::Now(), patience);
}

TEST_F(NodeServiceTest, AStoreThatStopsEndsReaders) {
  MakeShard("book");
  for (int64_t begin = 0; begin < 160'000; begin += 16'000) {
    ASSERT_EQ(Append({ShardRows("book", begin, 16'000)})[0].error().code(), 0);
  }
  v1::ReadRowsRequest range;
  range.set_session_id(ShardOf("book"));
  range.set_end(160'000);
  const auto context = Context();
  const auto reader = shards_->ReadRows(context.get(), range);
  v1::AppendRequest rows;
  ASSERT_TRUE(reader->Read(&rows));
  server_->Drain(absl::Now() + absl::Milliseconds(200));
  while (reader->Read(&rows)) {
  }
  EXPECT_FALSE(reader->Finish().ok());
  EXPECT_EQ(membership_->asked(), std::vector<std::string>{"leave"});
}

TEST_F(NodeServiceTest, TheMap) {
  v1::GetMapRequest request;
  v1::GetMapResponse response;
  ASSERT_TRUE(cluster_->GetMap(Context().get(), request, &response).ok());
  EXPECT_EQ(response.map().epoch(), kEpoch);
  EXPECT_EQ(response.map().nodes(1).id(), "b");
  EXPECT_EQ(response.map().slots_size(), static_cast<int>(kSlots));
  request.set_known_epoch(kEpoch);
  ASSERT_TRUE(cluster_->GetMap(Context().get(), request, &response).ok());
  EXPECT_FALSE(response.has_map());
  v1::StoreStatus status;
  ASSERT_TRUE(admin_->GetStatus(Context().get(), {}, &status).ok());
  EXPECT_EQ(status.epoch(), kEpoch);
}

TEST_F(NodeServiceTest, ChangesOfNodesReachTheMembership) {
  v1::ChangeNodeRequest request;
  request.set_node_id("b");
  v1::ChangeNodeResponse response;
  EXPECT_EQ(cluster_->ChangeNode(Context().get(), request, &response).error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
  for (const v1::NodeChange change :
       {v1::NODE_CHANGE_ADD, v1::NODE_CHANGE_DRAIN, v1::NODE_CHANGE_REMOVE}) {
    request.set_change(change);
    EXPECT_TRUE(cluster_->ChangeNode(Context().get(), request, &response).ok());
  }
  v1::RebalanceResponse rebalanced;
  EXPECT_TRUE(cluster_->Rebalance(Context().get(), {}, &rebalanced).ok());
  membership_->SetAnswer(absl::NotFoundError("no such node"));
  EXPECT_EQ(cluster_->ChangeNode(Context().get(), request, &response).error_code(),
            grpc::StatusCode::NOT_FOUND);
  const std::vector<std::string> expected = {"change b add", "change b drain", "change b remove",
                                             "rebalance", "change b remove"};
  EXPECT_EQ(membership_->asked(), expected);
}

class FixedRepair final : public NodeRepair {
 public:
  RepairProgress progress() const override {
    return {.node_synced = true, .shards_left = 3, .bytes_pulled = 4, .last_error = "none"};
  }
};

// Starts servers with options of its own.
class NodeStartTest : public NodeServiceTest {
 protected:
  void SetUp() override {}

  // What health checks of "ready" say at both addresses, which must agree with what the server says
  // of itself, once they say `expected`, or after 20 seconds.
  std::string ReadyBecomes(const std::string& expected) {
    const auto health =
        grpc::CreateChannel(server_->health_address(), grpc::InsecureChannelCredentials());
    const absl::Time deadline = absl::Now() + absl::Seconds(20);
    std::string here;
    do {
      here = HealthOf(*channel_, "ready");
    } while (here != expected && absl::Now() < deadline);
    if (here != expected) return here;
    EXPECT_EQ(server_->Activity().ready, expected == "SERVING");
    return HealthOf(*health, "ready");
  }
};

TEST_F(NodeStartTest, RepairIsStartedAndSaysHowFarItIs) {
  options_.cluster.start_repair = [](SessionStore&, std::shared_ptr<Membership>)
      -> absl::StatusOr<std::unique_ptr<NodeRepair>> { return std::make_unique<FixedRepair>(); };
  membership_->SetControlling(true);
  NodeServiceTest::SetUp();
  v1::RepairStatus status;
  ASSERT_TRUE(cluster_->GetRepair(Context().get(), {}, &status).ok());
  EXPECT_EQ(status.node_id(), "a");
  EXPECT_TRUE(status.controller());
  EXPECT_TRUE(status.synced());
  EXPECT_EQ(status.shards_left(), 3u);
  EXPECT_EQ(status.bytes_pulled(), 4u);
  EXPECT_EQ(status.last_error(), "none");
}

TEST_F(NodeStartTest, JoinsWhenThePortIsBound) {
  NodeIdentity joined;
  options_.cluster.join =
      [&](const NodeIdentity& identity) -> absl::StatusOr<std::shared_ptr<Membership>> {
    joined = identity;
    return membership_;
  };
  NodeServiceTest::SetUp();
  EXPECT_EQ(joined.bound_address, server_->address());
  EXPECT_EQ(joined.boot_id, server_->boot_id());

  options_.cluster.join = [](const NodeIdentity&) -> absl::StatusOr<std::shared_ptr<Membership>> {
    return absl::DeadlineExceededError("no cluster");
  };
  EXPECT_TRUE(absl::IsDeadlineExceeded(StoreServer::Start(options_).status()));
}

TEST_F(NodeStartTest, NewerMapsAreAskedFor) {
  std::atomic<uint64_t> wanted{0};
  options_.cluster.want_newer_map = [&](uint64_t epoch) { wanted = epoch; };
  NodeServiceTest::SetUp();
  v1::ShardCall call;
  *call.mutable_open() = OpenShard("book");
  EXPECT_EQ(CallOne(call, kEpoch + 3).error().code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(wanted, kEpoch + 3);
}

TEST_F(NodeStartTest, ReadyWhenTheMapCallsTheNodeLive) {
  options_.health_listen_address = "127.0.0.1:0";
  StartServer();
  EXPECT_EQ(HealthOf(*channel_, "ready"), "NOT_SERVING");
  EXPECT_EQ(HealthOf(*channel_, ""), "SERVING");
  cluster_ = v1::ClusterService::NewStub(channel_);
  v1::GetMapResponse response;
  EXPECT_EQ(cluster_->GetMap(Context().get(), {}, &response).error_code(),
            grpc::StatusCode::UNAVAILABLE);
  ClusterMap map = Map(kEpoch, 1);
  map.nodes[0].state = NodeState::kRepairing;
  membership_->Set(map);
  EXPECT_EQ(ReadyBecomes("NOT_SERVING"), "NOT_SERVING");
  map.nodes[0].state = NodeState::kLive;
  membership_->Set(map);
  EXPECT_EQ(ReadyBecomes("SERVING"), "SERVING");
  map.epoch = kEpoch + 1;
  map.nodes[0].state = NodeState::kDown;
  membership_->Set(map);
  EXPECT_EQ(ReadyBecomes("NOT_SERVING"), "NOT_SERVING");
  map.epoch = kEpoch + 2;
  map.nodes[0].state = NodeState::kLive;
  membership_->Set(map);
  EXPECT_EQ(ReadyBecomes("SERVING"), "SERVING");
  const auto health =
      grpc::CreateChannel(server_->health_address(), grpc::InsecureChannelCredentials());
  server_->Drain(absl::Now());
  for (const char* service : {"", "ready"}) EXPECT_EQ(HealthOf(*health, service), "NOT_SERVING");
  EXPECT_FALSE(server_->Activity().ready);
}

// The others are told first: while they are, the node answers, and says so.
TEST_F(NodeStartTest, LeavesBeforeItIsNotReady) {
  NodeServiceTest::SetUp();
  bool ready = false, draining = false;
  std::string health;
  membership_->SetOnLeave([&] {
    ready = server_->Activity().ready;
    draining = server_->Activity().draining;
    health = HealthOf(*channel_, "ready");
  });
  server_->Drain(absl::Now() + absl::Seconds(10));
  EXPECT_TRUE(ready);
  EXPECT_TRUE(draining);
  EXPECT_EQ(health, "SERVING");
  EXPECT_FALSE(server_->Activity().ready);
}

// After a restart with a directory, many opens that each wait for the disk do so together.
TEST_F(NodeStartTest, ManyDurableOpens) {
  const TemporaryFolder folder;
  options_.store.disk.store.directory = folder.path();
  NodeServiceTest::SetUp();
  v1::ShardCalls calls;
  calls.set_epoch(kEpoch);
  for (int i = 0; i < 400; ++i) {
    v1::OpenRequest* const open = calls.add_calls()->mutable_open();
    *open = OpenShard(absl::StrCat("s", i));
    open->set_durability(v1::DURABILITY_DURABLE);
  }
  v1::ShardResults results;
  const grpc::Status status = Call(calls, results);
  ASSERT_TRUE(status.ok()) << status.error_message();
  for (const v1::ShardResult& result : results.results()) {
    EXPECT_EQ(result.error().code(), 0) << result.error().message();
  }
  server_.reset();
}

class SingleStoreTest : public StoreServiceTest {};

TEST_F(SingleStoreTest, IsNoNode) {
  EXPECT_TRUE(server_->Activity().ready);
  EXPECT_FALSE(server_->AsNode().has_value());
  const auto shards = v1::ShardService::NewStub(channel_);
  const auto cluster = v1::ClusterService::NewStub(channel_);
  const auto expect = [](const grpc::Status& status) {
    EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION) << status.error_message();
  };
  v1::ShardResults results;
  expect(shards->Call(Context().get(), {}, &results));
  v1::DigestResponse digest;
  expect(shards->Digest(Context().get(), {}, &digest));
  const auto inventory_context = Context(), rows_context = Context();
  expect(shards->Inventory(inventory_context.get(), {})->Finish());
  expect(shards->ReadRows(rows_context.get(), {})->Finish());
  v1::GetMapResponse map;
  expect(cluster->GetMap(Context().get(), {}, &map));
  v1::RepairStatus repair;
  expect(cluster->GetRepair(Context().get(), {}, &repair));
  v1::ChangeNodeRequest change;
  change.set_change(v1::NODE_CHANGE_DRAIN);
  v1::ChangeNodeResponse changed;
  expect(cluster->ChangeNode(Context().get(), change, &changed));
  v1::RebalanceResponse rebalanced;
  expect(cluster->Rebalance(Context().get(), {}, &rebalanced));

  v1::OpenRequest placed = OpenRequest("placed");
  placed.mutable_placement()->set_key("k");
  placed.mutable_placement()->mutable_replication()->set_replicas(1);
  expect(Open(placed));
  OpenSession("plain");
  v1::AppendRequest append = AppendRequest("plain", 0, 1);
  append.set_epoch(3);
  EXPECT_EQ(Append({append})[0].error().code(), grpc::StatusCode::FAILED_PRECONDITION);
}

}  // namespace
}  // namespace attic
