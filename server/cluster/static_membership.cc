#include "server/cluster/static_membership.h"

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "server/cluster/map_holder.h"
#include "server/cluster/placement/next_map.h"

namespace attic {
namespace {

absl::Status Refused() {
  return absl::FailedPreconditionError("the cluster's membership is a file: it does not change");
}

class StaticMembership final : public Membership {
 public:
  StaticMembership(std::string node_id, ClusterMapPtr map)
      : node_id_(std::move(node_id)), holder_(map->cluster) {
    holder_.Offer(map);
  }
  ~StaticMembership() override { holder_.Stop(); }

  const std::string& node_id() const override { return node_id_; }
  ClusterMapPtr map() const override { return holder_.map(); }
  ClusterMapPtr WaitForNewer(uint64_t epoch, absl::Time deadline) override {
    return holder_.WaitForNewer(epoch, deadline);
  }
  void Offer(const ClusterMapPtr&) override {}
  void Report(const SyncReport&) override {}
  bool controlling() const override { return false; }
  absl::Status Change(const std::string&, NodeChange, absl::Time) override { return Refused(); }
  absl::Status Rebalance(absl::Time) override { return Refused(); }
  void Leave(absl::Time) override {}

 private:
  const std::string node_id_;
  MapHolder holder_;
};

absl::StatusOr<ClusterMap> MapOf(const nlohmann::json& file) {
  PlacementOptions options;
  options.slots = file.value("slots", options.slots);
  options.replicas_default = file.value("replicas", options.replicas_default);
  ClusterMap none;
  none.cluster = file.at("cluster").get<std::string>();
  ClusterView view;
  for (const nlohmann::json& node : file.at("nodes")) {
    view.members.push_back({.node_id = node.at("id").get<std::string>(),
                            .address = node.at("address").get<std::string>(),
                            .zone = node.value("zone", ""),
                            .capacity = node.value("capacity", uint64_t{1})});
  }
  std::sort(view.members.begin(), view.members.end(),
            [](const Member& a, const Member& b) { return a.node_id < b.node_id; });
  for (size_t i = 1; i < view.members.size(); ++i) {
    if (view.members[i - 1].node_id == view.members[i].node_id) {
      return absl::InvalidArgumentError(
          absl::StrCat("nodes: ", view.members[i].node_id, " is there twice"));
    }
  }
  ClusterMap map = NextMap(none, view, options);
  map.epoch = file.value("epoch", uint64_t{1});
  for (SlotAssignment& slot : map.slots) slot.epoch = map.epoch;
  for (ClusterNode& node : map.nodes) node.state_epoch = map.epoch;
  ATTIC_RETURN_IF_ERROR(ValidateClusterMap(map));
  return map;
}

}  // namespace

absl::StatusOr<std::shared_ptr<Membership>> ReadStaticMembership(const std::string& file,
                                                                 const std::string& node_id) {
  std::ifstream stream(file);
  if (!stream) return absl::NotFoundError(absl::StrCat("cluster-file: cannot read ", file));
  ClusterMap map;
  try {
    ATTIC_ASSIGN_OR_RETURN(map, MapOf(nlohmann::json::parse(stream)));
  } catch (const nlohmann::json::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat("cluster-file: ", error.what()));
  }
  if (map.FindNode(node_id) < 0) {
    return absl::NotFoundError(
        absl::StrCat("node-id: ", node_id, " is none of the nodes in ", file));
  }
  return std::make_shared<StaticMembership>(node_id,
                                            std::make_shared<const ClusterMap>(std::move(map)));
}

}  // namespace attic
