// Answers of a cluster stay right, and come, while nodes fail and slots move.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "api/shard.h"
#include "tests/unit/client/client_test_data.h"
#include "tests/unit/client/cluster/cluster_client_fixture.h"

namespace attic {
namespace {

using ClusterFaultsTest = ClusterClientFixture;

TEST_F(ClusterFaultsTest, GoesOnWhenANodeDiesBetweenAppendsAndAnswers) {
  for (size_t victim = 0; victim < 3; ++victim) {
    Start(3, 2);
    const std::string id = absl::StrCat("a", victim);
    Open(id);
    ASSERT_EQ(Append(id, 300), absl::OkStatus());
    ASSERT_EQ(Flush(), absl::OkStatus());
    const auto held = cluster_->node(victim).store()->ListSessions("", 100);
    const bool concerned = std::any_of(held.begin(), held.end(), [](const auto& one) {
      return ParseShardSessionId(one.session_id).has_value();
    });
    cluster_->node(victim).Kill();
    ExpectSame(id);
    ASSERT_EQ(Append(id, 50), absl::OkStatus());
    // Nobody says yet that the node is gone: the append waits for the map.
    EXPECT_EQ(
        absl::IsDeadlineExceeded(stream_->Flush(absl::Now() + absl::Milliseconds(100)).status()),
        concerned);
    cluster_->SetState(victim, NodeState::kDown);
    ASSERT_EQ(Flush(), absl::OkStatus());
    ExpectSame(id);
    stream_.reset();
    client_.reset();
  }
}

TEST_F(ClusterFaultsTest, ASlowReplicaIsHedged) {
  Start(2, 2);
  Open("a");
  ASSERT_EQ(Append("a", 300), absl::OkStatus());
  ASSERT_EQ(Flush(), absl::OkStatus());
  for (int i = 0; i < 50; ++i) ExpectSame("a");
  cluster_->node(1).Pause();
  const absl::Time begin = absl::Now();
  for (int i = 0; i < 10; ++i) ExpectSame("a");
  // Far less than waiting for the node, or its patience each time, would take.
  EXPECT_LT(absl::Now() - begin, absl::Seconds(2));
  cluster_->node(1).Resume();
}

// A repairing node is not waited for, one that has caught up once is.
TEST_F(ClusterFaultsTest, NothingIsAcknowledgedWithoutAJoiningReplica) {
  Start(2, 2);
  Open("a");
  ASSERT_EQ(Append("a", 300), absl::OkStatus());
  ASSERT_EQ(Flush(), absl::OkStatus());
  cluster_->node(1).Kill();
  cluster_->SetState(1, NodeState::kDown);
  cluster_->node(1).Restart();  // holds nothing
  cluster_->SetState(1, NodeState::kRepairing);
  ASSERT_EQ(Append("a", 50), absl::OkStatus());
  ASSERT_EQ(Flush(), absl::OkStatus());
  cluster_->ChangeMap([](ClusterMap& map) { map.nodes[1].joining = true; });
  // The next append is by this map, as the node that holds all would see to.
  const absl::Time patience = absl::Now() + absl::Seconds(10);
  while (client_->Status().ok() && absl::Now() < patience) {
    ASSERT_EQ(Append("a", 10), absl::OkStatus());
    if (!stream_->Flush(absl::Now() + absl::Milliseconds(200)).ok()) break;
  }
  EXPECT_TRUE(
      absl::IsDeadlineExceeded(stream_->Flush(absl::Now() + absl::Milliseconds(200)).status()));
  cluster_->Repair(1);
  ASSERT_EQ(Flush(), absl::OkStatus());
  ExpectSame("a");
}

// What only it refuses is an error: it is about to be live, and would lack the session.
TEST_F(ClusterFaultsTest, NothingIsOpenedWithoutAJoiningReplica) {
  for (const bool joining : {false, true}) {
    Start(2, 2);
    cluster_->ChangeMap([&](ClusterMap& map) {
      map.nodes[1].state = NodeState::kRepairing;
      map.nodes[1].joining = joining;
    });
    client_ = cluster_->Connect();
    const OpenSessionRequest request = Request("a");
    OpenSessionRequest other = request;
    other.fingerprint.model_id = "other";
    const auto slots = static_cast<uint32_t>(cluster_->map()->slots.size());
    other.placement = {
        .slot = SlotOfManifest("a", slots), .key = "other", .replication = {.replicas = 2}};
    const auto taken = cluster_->node(1).store()->OpenSession(other);
    ASSERT_TRUE(taken.ok()) << taken.status();
    EXPECT_EQ(client_->OpenSession(request).ok(), !joining);
    stream_.reset();
    client_.reset();
  }
}

TEST_F(ClusterFaultsTest, ALaggingReplicaIsNotAskedForWhatItLacks) {
  Start(2, 2, {.call_timeout = absl::Seconds(2)});
  Open("a", {.ack_policy = AckPolicy::kOne});
  ASSERT_EQ(Append("a", 300), absl::OkStatus());
  ASSERT_EQ(Flush(), absl::OkStatus());
  cluster_->node(0).Pause();
  ASSERT_EQ(Append("a", 100), absl::OkStatus());
  ASSERT_EQ(Flush(), absl::OkStatus());  // one holds it
  // Comes back to find its streams gone, and with them what was on the way.
  cluster_->node(0).BreakStreams();
  for (int i = 0; i < 20; ++i) ExpectSame("a");
  cluster_->node(0).Resume();
  for (int i = 0; i < 20; ++i) ExpectSame("a");
}

TEST_F(ClusterFaultsTest, PolicyAllFailsWhenAReplicaStaysAwayAndNobodySaysSo) {
  Start(2, 2, {.call_timeout = absl::Milliseconds(300)});
  Open("a");
  cluster_->node(1).Kill();
  ASSERT_EQ(Append("a", 10), absl::OkStatus());
  EXPECT_EQ(Flush().code(), absl::StatusCode::kUnavailable);
}

TEST_F(ClusterFaultsTest, PolicyQuorumOfThreeLosesOneAndNotTwo) {
  Start(3, 3, {.call_timeout = absl::Milliseconds(500)});
  Open("a", {.ack_policy = AckPolicy::kQuorum});
  ASSERT_EQ(Append("a", 10), absl::OkStatus());
  ASSERT_EQ(Flush(), absl::OkStatus());
  cluster_->node(0).Kill();
  ASSERT_EQ(Append("a", 10), absl::OkStatus());
  ASSERT_EQ(Flush(), absl::OkStatus());
  ExpectSame("a");
  cluster_->node(1).Kill();
  ASSERT_EQ(Append("a", 10), absl::OkStatus());
  EXPECT_EQ(Flush().code(), absl::StatusCode::kUnavailable);
}

TEST_F(ClusterFaultsTest, SlotsMoveWhileTokensCome) {
  Start(4, 2);
  Open("a");
  for (int round = 0; round < 8; ++round) {
    for (int i = 0; i < 5; ++i) ASSERT_EQ(Append("a", 1 + random_() % 20), absl::OkStatus());
    const size_t moving = random_() % cluster_->size();
    // In a quarter of the slots the node comes in, is filled and replaces the last replica.
    cluster_->ChangeMap([&](ClusterMap& map) {
      for (SlotAssignment& slot : map.slots) {
        const bool there =
            std::find(slot.replicas.begin(), slot.replicas.end(), moving) != slot.replicas.end();
        if (!there && random_() % 2 == 0) slot.incoming = {static_cast<uint32_t>(moving)};
      }
    });
    for (int i = 0; i < 5; ++i) ASSERT_EQ(Append("a", 1 + random_() % 20), absl::OkStatus());
    ASSERT_EQ(Flush(), absl::OkStatus());
    cluster_->Repair(moving);
    cluster_->ChangeMap([&](ClusterMap& map) {
      for (SlotAssignment& slot : map.slots) {
        if (slot.incoming.empty()) continue;
        slot.replicas.back() = slot.incoming.front();
        slot.incoming.clear();
      }
    });
    ExpectSame("a");
  }
  ASSERT_EQ(Flush(), absl::OkStatus());
  ExpectSame("a");
}

TEST_F(ClusterFaultsTest, ANodeWithAnOldMapIsWaitedForOrPassedBy) {
  Start(3, 2);
  Open("a");
  ASSERT_EQ(Append("a", 100), absl::OkStatus());
  ASSERT_EQ(Flush(), absl::OkStatus());
  cluster_->node(2).FreezeMap();
  cluster_->ChangeMap([](ClusterMap& map) { map.nodes[0].zone = "elsewhere"; });
  ExpectSame("a");
  ASSERT_EQ(Append("a", 100), absl::OkStatus());
  std::thread thaw([&] { cluster_->node(2).Thaw(); });
  ASSERT_EQ(Flush(), absl::OkStatus());
  thaw.join();
  ExpectSame("a");
}

TEST_F(ClusterFaultsTest, RandomFaultsChangeNoAnswer) {
  Start(4, 2);
  Open("a");
  Open("b", {.replicas = 3});
  // Streams belong to the client, not to a session.
  std::vector<bool> down(4, false);
  for (int step = 0; step < 60; ++step) {
    const std::string id = random_() % 2 == 0 ? "a" : "b";
    const size_t node = random_() % 4;
    const bool calm = std::count(down.begin(), down.end(), true) == 0;
    switch (random_() % 4) {
      case 0:
        if (calm) {
          cluster_->node(node).Kill();
          cluster_->SetState(node, NodeState::kDown);
          down[node] = true;
        } else {
          const size_t back =
              static_cast<size_t>(std::find(down.begin(), down.end(), true) - down.begin());
          ASSERT_EQ(Flush(), absl::OkStatus());
          cluster_->node(back).Restart();
          cluster_->SetState(back, NodeState::kRepairing);
          ASSERT_EQ(Append(id, 1 + random_() % 10), absl::OkStatus());
          ASSERT_EQ(Flush(), absl::OkStatus());
          cluster_->Repair(back);
          cluster_->SetState(back, NodeState::kLive);
          down[back] = false;
        }
        break;
      case 1:
        cluster_->node(node).BreakStreams();
        break;
      default:
        if (held_[id] < 5000) {
          ASSERT_EQ(Append(id, 1 + random_() % 60), absl::OkStatus());
        }
        break;
    }
    ASSERT_EQ(Flush(), absl::OkStatus());
    ExpectSame(id);
    if (HasFatalFailure()) return;
  }
}

TEST_F(ClusterFaultsTest, ManyThreadsAttendWhileTokensComeAndANodeDies) {
  Start(3, 2);
  Open("a");
  ASSERT_EQ(Append("a", 400), absl::OkStatus());
  ASSERT_EQ(Flush(), absl::OkStatus());
  const TestLayer& layer = data_.at(Key("a", 1));
  std::atomic<bool> stop{false};
  std::atomic<int> wrong{0}, answered{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937_64 random(seed_ + static_cast<uint64_t>(t));
      while (!stop) {
        const std::vector<float> queries = RandomFloats(4 * 16, random);
        const AttendItem item{
            .session_id = "a", .layer = 1, .mode = AttendMode::kExact, .queries = queries};
        const auto got = client_->Attend({&item, 1}, absl::Now() + kSoon);
        if (!got.ok() || !got->front().status.ok()) {
          ++wrong;
          continue;
        }
        // All heads answered for the same positions, which were acknowledged.
        std::vector<double> log_sum_exp;
        const PositionRange range = got->front().range;
        const auto want = layer.Oracle(queries, range, log_sum_exp);
        if (range.end < 400 || RelativeError(got->front().output, want) > 1e-5) ++wrong;
        ++answered;
      }
    });
  }
  for (int i = 0; i < 40; ++i) {
    ASSERT_EQ(Append("a", 1 + random_() % 20), absl::OkStatus());
    if (i == 20) {
      cluster_->node(1).Kill();
      cluster_->SetState(1, NodeState::kDown);
    }
    ASSERT_EQ(Flush(), absl::OkStatus());
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_GT(answered, 0);
}

}  // namespace
}  // namespace attic
