// The connections of a client to the nodes of its cluster: one to each.
#ifndef ATTIC_CLIENT_CPP_CLUSTER_NODE_POOL_H_
#define ATTIC_CLIENT_CPP_CLUSTER_NODE_POOL_H_

#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>

#include "base/mutex.h"
#include "client/cpp/cluster/node_link.h"
#include "client/cpp/cluster/node_load.h"

namespace attic {

struct PooledNode {
  std::unique_ptr<NodeLink> link;
  // Outlives the link for the callbacks that note what a call took.
  std::shared_ptr<NodeLoad> load = std::make_shared<NodeLoad>();
};

// Thread-safe.
class NodePool {
 public:
  explicit NodePool(NodeLinkFactory factory) : factory_(std::move(factory)) {}

  // Never null. To be let go of by threads of the caller only, not by callbacks of the link.
  std::shared_ptr<PooledNode> Get(const std::string& address) {
    MutexLock lock(mutex_);
    std::shared_ptr<PooledNode>& node = nodes_[address];
    if (node == nullptr) {
      node = std::make_shared<PooledNode>();
      node->link = factory_(address);
    }
    return node;
  }

  // Lets go of all others; those in use stay until they are not.
  void KeepOnly(const std::set<std::string>& addresses) {
    std::map<std::string, std::shared_ptr<PooledNode>> gone;
    MutexLock lock(mutex_);
    for (auto node = nodes_.begin(); node != nodes_.end();) {
      const auto next = std::next(node);
      if (!addresses.contains(node->first)) gone.insert(nodes_.extract(node));
      node = next;
    }
  }

 private:
  const NodeLinkFactory factory_;
  Mutex mutex_;
  std::map<std::string, std::shared_ptr<PooledNode>> nodes_ ATTIC_GUARDED_BY(mutex_);
};

}  // namespace attic

#endif  // ATTIC_CLIENT_CPP_CLUSTER_NODE_POOL_H_
