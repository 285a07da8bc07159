// What tests of a cluster's client work with.
#ifndef ATTIC_TESTS_UNIT_CLIENT_CLUSTER_CLUSTER_CLIENT_FIXTURE_H_
#define ATTIC_TESTS_UNIT_CLIENT_CLUSTER_CLUSTER_CLIENT_FIXTURE_H_

#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "tests/unit/client/client_test_data.h"
#include "tests/unit/client/cluster/fake_cluster.h"

namespace attic {

inline constexpr absl::Duration kSoon = absl::Seconds(20);
inline const std::vector<uint32_t> kLayers = {1, 3};

// A cluster, a client of it, and one store with the same sessions to compare with.
class ClusterClientFixture : public ::testing::Test {
 protected:
  void Start(size_t nodes, uint32_t replicas, ClientOptions options = {}) {
    const char* const chosen = std::getenv("ATTIC_TEST_SEED");
    seed_ = chosen != nullptr ? std::strtoull(chosen, nullptr, 10) : std::random_device()();
    SCOPED_TRACE(absl::StrCat("seed ", seed_));
    std::printf("seed %llu\n", static_cast<unsigned long long>(seed_));
    random_.seed(seed_);
    client_.reset();  // it asks its cluster for the map until it ends
    cluster_ = std::make_unique<FakeCluster>(nodes, replicas, seed_, SmallStoreOptions());
    client_ = cluster_->Connect(options);
  }

  OpenSessionRequest Request(const std::string& id, Replication replication = {}) {
    return {.session_id = id,
            .fingerprint = TestFingerprint(),
            .stored_layers = kLayers,
            .replication = replication};
  }

  // In both.
  void Open(const std::string& id, Replication replication = {}) {
    const auto opened = client_->OpenSession(Request(id, replication));
    ASSERT_TRUE(opened.ok()) << opened.status();
    EXPECT_TRUE(opened->created);
    ASSERT_TRUE(oracle_->OpenSession(Request(id)).ok());
    for (const uint32_t layer : kLayers) data_.emplace(Key(id, layer), TestLayer(6000, random_));
    stream_ = *client_->OpenAppendStream();
  }

  static std::string Key(const std::string& id, uint32_t layer) {
    return absl::StrCat(id, "/", layer);
  }

  // The next `count` tokens of every layer, in both.
  absl::Status Append(const std::string& id, size_t count) {
    for (const uint32_t layer : kLayers) {
      const AppendBatch batch =
          data_.at(Key(id, layer)).Batch(id, layer, static_cast<int64_t>(held_[id]), count);
      if (const absl::Status sent = stream_->Append(batch); !sent.ok()) return sent;
      EXPECT_TRUE(oracle_->Append(batch, absl::Now() + kSoon).ok());
    }
    held_[id] += count;
    return absl::OkStatus();
  }
  absl::Status Flush() { return stream_->Flush(absl::Now() + kSoon).status(); }

  // Exact answers of both are the same.
  void ExpectSame(const std::string& id, PositionRange range = {}, int64_t min_watermark = 0,
                  absl::Duration timeout = kSoon) {
    for (const uint32_t layer : kLayers) {
      const std::vector<float> queries = RandomFloats(4 * 16, random_);
      const AttendItem item{.session_id = id,
                            .layer = layer,
                            .range = range,
                            .min_watermark = min_watermark,
                            .mode = AttendMode::kExact,
                            .queries = queries};
      const auto got = client_->Attend({&item, 1}, absl::Now() + timeout);
      ASSERT_TRUE(got.ok()) << got.status();
      ASSERT_TRUE(got->front().status.ok()) << got->front().status;
      const auto want = oracle_->Attend({&item, 1}, absl::Now() + kSoon);
      ExpectClose(got->front(), want->front());
    }
  }

  static void ExpectClose(const AttendAnswer& got, const AttendAnswer& want) {
    EXPECT_EQ(got.range, want.range);
    ASSERT_EQ(got.output.size(), want.output.size());
    for (size_t i = 0; i < got.output.size(); ++i) EXPECT_NEAR(got.output[i], want.output[i], 1e-5);
    for (size_t i = 0; i < got.log_sum_exp.size(); ++i) {
      if (got.log_sum_exp[i] != want.log_sum_exp[i]) {  // both may be -infinity
        EXPECT_NEAR(got.log_sum_exp[i], want.log_sum_exp[i], 1e-4);
      }
      EXPECT_FLOAT_EQ(got.coverage[i], want.coverage[i]);
      EXPECT_EQ(got.estimated_error[i], 0);
    }
    EXPECT_EQ(got.read.tokens, want.read.tokens);
  }

  uint64_t seed_ = 0;
  std::mt19937_64 random_;
  std::unique_ptr<FakeCluster> cluster_;
  std::unique_ptr<Client> client_;
  std::unique_ptr<SessionStore> oracle_ = SessionStore::Create(SmallStoreOptions());
  std::unique_ptr<AppendStream> stream_;
  std::map<std::string, TestLayer> data_;
  std::map<std::string, size_t> held_;
};

}  // namespace attic

#endif  // ATTIC_TESTS_UNIT_CLIENT_CLUSTER_CLUSTER_CLIENT_FIXTURE_H_
