// The newest cluster map a node knows.
#ifndef ATTIC_SERVER_CLUSTER_MAP_HOLDER_H_
#define ATTIC_SERVER_CLUSTER_MAP_HOLDER_H_

#include <cstdint>
#include <string>

#include "absl/time/time.h"
#include "base/mutex.h"
#include "server/cluster/membership.h"

namespace attic {

// Thread-safe.
class MapHolder {
 public:
  explicit MapHolder(std::string cluster) : cluster_(std::move(cluster)) {}

  ClusterMapPtr map() const;
  // As Membership::WaitForNewer.
  ClusterMapPtr WaitForNewer(uint64_t epoch, absl::Time deadline);
  // Takes a map that is of this cluster and newer than the one held; returns whether it did.
  bool Offer(const ClusterMapPtr& map);
  // Ends the waits of now and later.
  void Stop();

 private:
  const std::string cluster_;
  mutable Mutex mutex_;
  CondVar changed_;
  ClusterMapPtr map_ ATTIC_GUARDED_BY(mutex_);
  bool stopped_ ATTIC_GUARDED_BY(mutex_) = false;
};

}  // namespace attic

#endif  // ATTIC_SERVER_CLUSTER_MAP_HOLDER_H_
