#include "server/cluster/repair/node_repair.h"

#include <string>
#include <utility>
#include <vector>

#include "server/cluster/repair/remote_peer.h"
#include "server/cluster/repair/repairer.h"
#include "server/cluster/repair/shard_changes.h"
#include "server/cluster/repair/store_holder.h"

namespace attic {
namespace {

class StoreRepair final : public NodeRepair {
 public:
  StoreRepair(SessionStore& store, std::shared_ptr<Membership> membership,
              const RepairOptions& options, const Limits& limits)
      : membership_(std::move(membership)),
        holder_(store),
        changes_(options.settle, options.clock),
        repairer_(*membership_, holder_, changes_, RemotePeers(limits), options) {}

  RepairProgress progress() const override { return repairer_.progress(); }
  void NotifyGap(const std::string& session_id) override { repairer_.NotifyGap(session_id); }
  std::shared_ptr<void> Changing(std::vector<std::string> session_ids) override {
    return std::make_shared<ShardChanges::Change>(changes_, std::move(session_ids));
  }

 private:
  const std::shared_ptr<Membership> membership_;
  StoreHolder holder_;
  ShardChanges changes_;
  Repairer repairer_;
};

}  // namespace

std::unique_ptr<NodeRepair> StartNodeRepair(SessionStore& store,
                                            std::shared_ptr<Membership> membership,
                                            const RepairOptions& options, const Limits& limits) {
  return std::make_unique<StoreRepair>(store, std::move(membership), options, limits);
}

}  // namespace attic
