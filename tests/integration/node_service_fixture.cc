#include "tests/integration/node_service_fixture.h"

namespace attic {

NodeServiceTest::NodeServiceTest() {
  options_.cluster.join =
      [this](const NodeIdentity&) -> absl::StatusOr<std::shared_ptr<Membership>> {
    return membership_;
  };
}

void NodeServiceTest::SetUp() {
  membership_->Set(Map(kEpoch, kEpoch - 2));
  StartServer();
  shards_ = v1::ShardService::NewStub(channel_);
  cluster_ = v1::ClusterService::NewStub(channel_);
}

ClusterMap NodeServiceTest::Map(uint64_t epoch, uint64_t changed) {
  ClusterMap map{.cluster = "test", .epoch = epoch};
  map.nodes = {{.id = "a", .address = "a:1"}, {.id = "b", .address = "b:1"}};
  map.slots.assign(kSlots, {.replicas = {0, 1}, .epoch = changed});
  return map;
}

std::string NodeServiceTest::ShardOf(const std::string& session, uint32_t kv_head) const {
  return ShardSessionId(session, {.layer = kLayer, .kv_head = kv_head});
}

uint32_t NodeServiceTest::SlotOf(const std::string& session, uint32_t kv_head) const {
  return SlotOfShard(session, {.layer = kLayer, .kv_head = kv_head}, kSlots);
}

v1::OpenRequest NodeServiceTest::OpenShard(const std::string& session, uint32_t kv_head) const {
  v1::OpenRequest request = OpenRequest(ShardOf(session, kv_head));
  request.mutable_fingerprint()->set_q_heads(kQHeads / kKvHeads);
  request.mutable_fingerprint()->set_kv_heads(1);
  request.clear_stored_layers();
  request.add_stored_layers(kLayer);
  v1::Placement* const placement = request.mutable_placement();
  placement->set_slot(SlotOf(session, kv_head));
  placement->set_key(session);
  placement->mutable_replication()->set_replicas(2);
  placement->set_kv_head(kv_head);
  return request;
}

v1::OpenRequest NodeServiceTest::OpenManifest(const std::string& session) const {
  v1::OpenRequest request = OpenRequest(session);
  v1::Placement* const placement = request.mutable_placement();
  placement->set_slot(SlotOfManifest(session, kSlots));
  placement->set_key(session);
  placement->mutable_replication()->set_replicas(2);
  return request;
}

grpc::Status NodeServiceTest::Call(const v1::ShardCalls& calls, v1::ShardResults& results) {
  return shards_->Call(Context().get(), calls, &results);
}

v1::ShardResult NodeServiceTest::CallOne(const v1::ShardCall& call, uint64_t epoch) {
  v1::ShardCalls calls;
  calls.set_epoch(epoch);
  *calls.add_calls() = call;
  v1::ShardResults results;
  const grpc::Status status = Call(calls, results);
  if (status.ok() && results.results_size() == 1) return results.results(0);
  v1::ShardResult failed;
  failed.mutable_error()->set_code(status.error_code());
  failed.mutable_error()->set_message(status.error_message());
  return failed;
}

void NodeServiceTest::MakeShard(const std::string& session, uint32_t kv_head) {
  v1::ShardCall call;
  *call.mutable_open() = OpenShard(session, kv_head);
  const v1::ShardResult result = CallOne(call);
  ASSERT_EQ(result.error().code(), 0) << result.error().message();
}

v1::AppendRequest NodeServiceTest::ShardRows(const std::string& session, int64_t begin,
                                             uint32_t count, uint64_t epoch, uint32_t kv_head) {
  v1::AppendRequest request;
  request.set_session_id(ShardOf(session, kv_head));
  request.set_layer(kLayer);
  request.set_begin_position(begin);
  request.set_count(count);
  request.set_keys(RandomFloatBytes(size_t{count} * kHeadDim));
  request.set_values(RandomFloatBytes(size_t{count} * kValueDim));
  request.set_epoch(epoch);
  return request;
}

}  // namespace attic
