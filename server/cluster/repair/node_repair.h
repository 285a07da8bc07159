// Repair of a node's own store from its peers over the network.
#ifndef ATTIC_SERVER_CLUSTER_REPAIR_NODE_REPAIR_H_
#define ATTIC_SERVER_CLUSTER_REPAIR_NODE_REPAIR_H_

#include <memory>

#include "api/limits.h"
#include "server/cluster/cluster_options.h"
#include "server/cluster/membership.h"
#include "server/cluster/repair/repair_pass.h"
#include "server/session/session_store.h"

namespace attic {

// For ClusterOptions::start_repair. options.boot_id is the one in NodeIdentity. `store` outlives
// it.
std::unique_ptr<NodeRepair> StartNodeRepair(SessionStore& store,
                                            std::shared_ptr<Membership> membership,
                                            const RepairOptions& options, const Limits& limits);

}  // namespace attic

#endif  // ATTIC_SERVER_CLUSTER_REPAIR_NODE_REPAIR_H_
