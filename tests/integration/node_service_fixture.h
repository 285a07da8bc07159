// A store server that is node "a" of a cluster whose maps the test sets.
#ifndef ATTIC_TESTS_INTEGRATION_NODE_SERVICE_FIXTURE_H_
#define ATTIC_TESTS_INTEGRATION_NODE_SERVICE_FIXTURE_H_

#include <memory>
#include <string>
#include <vector>

#include "api/shard.h"
#include "attic/v1/cluster.grpc.pb.h"
#include "attic/v1/shard.grpc.pb.h"
#include "tests/integration/store_service_fixture.h"
#include "tests/support/manual_membership.h"

namespace attic {

class NodeServiceTest : public StoreServiceTest {
 protected:
  static constexpr uint32_t kSlots = 16;
  static constexpr uint64_t kEpoch = 7;
  static constexpr uint32_t kLayer = 1;

  NodeServiceTest();
  void SetUp() override;

  // Nodes a and b hold everything, since epoch `changed`.
  static ClusterMap Map(uint64_t epoch, uint64_t changed);

  // Shard `kv_head` of layer kLayer, and the manifest.
  std::string ShardOf(const std::string& session, uint32_t kv_head = 0) const;
  uint32_t SlotOf(const std::string& session, uint32_t kv_head = 0) const;
  v1::OpenRequest OpenShard(const std::string& session, uint32_t kv_head = 0) const;
  v1::OpenRequest OpenManifest(const std::string& session) const;

  grpc::Status Call(const v1::ShardCalls& calls, v1::ShardResults& results);
  // One call; of the whole message when that fails.
  v1::ShardResult CallOne(const v1::ShardCall& call, uint64_t epoch = kEpoch);
  // Opens a shard that must not fail.
  void MakeShard(const std::string& session, uint32_t kv_head = 0);
  // `count` random rows of a shard.
  v1::AppendRequest ShardRows(const std::string& session, int64_t begin, uint32_t count,
                              uint64_t epoch = kEpoch, uint32_t kv_head = 0);

  const std::shared_ptr<ManualMembership> membership_ = std::make_shared<ManualMembership>("a");
  std::unique_ptr<v1::ShardService::Stub> shards_;
  std::unique_ptr<v1::ClusterService::Stub> cluster_;
};

}  // namespace attic

#endif  // ATTIC_TESTS_INTEGRATION_NODE_SERVICE_FIXTURE_H_
