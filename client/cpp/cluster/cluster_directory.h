// The newest map of the cluster that any node is known to have.
#ifndef ATTIC_CLIENT_CPP_CLUSTER_CLUSTER_DIRECTORY_H_
#define ATTIC_CLIENT_CPP_CLUSTER_CLUSTER_DIRECTORY_H_

#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/time.h"
#include "api/cluster_map.h"
#include "base/mutex.h"
#include "client/cpp/cluster/node_pool.h"

namespace attic {

// Thread-safe. A thread asks some nodes every kInterval, and soon after somebody says that the map
// may be old. Maps only get newer; those of another cluster are not taken.
class ClusterDirectory {
 public:
  static constexpr absl::Duration kInterval = absl::Seconds(1);

  // Besides the nodes of the map, those at `seeds` are asked. `pool` must outlive the object.
  ClusterDirectory(NodePool& pool, ClusterMap map, std::vector<std::string> seeds);
  ~ClusterDirectory();
  ClusterDirectory(const ClusterDirectory&) = delete;
  ClusterDirectory& operator=(const ClusterDirectory&) = delete;

  std::shared_ptr<const ClusterMap> map() const;

  // An answer came from a node that knows the map of this epoch.
  void Saw(uint64_t epoch);
  // Something went wrong that a newer map may explain.
  void Refresh();
  // Returns, true, when the map is newer than `epoch`; false at `until`.
  bool WaitForNewer(uint64_t epoch, absl::Time until);

 private:
  // Shared with the calls in progress.
  struct State {
    mutable Mutex mutex;
    CondVar changed;
    std::shared_ptr<const ClusterMap> map ATTIC_GUARDED_BY(mutex);
    bool wanted ATTIC_GUARDED_BY(mutex) = false;
    bool stopping ATTIC_GUARDED_BY(mutex) = false;
    int asking ATTIC_GUARDED_BY(mutex) = 0;  // nodes that have not answered yet

    void Offer(const v1::GetMapResponse& response);
  };

  void Run();
  // False when the thread is to end.
  bool WaitForWish();
  void AskSome();

  NodePool& pool_;
  const std::vector<std::string> seeds_;
  const std::shared_ptr<State> state_ = std::make_shared<State>();
  std::mt19937_64 random_;  // of the thread
  std::thread thread_;
};

}  // namespace attic

#endif  // ATTIC_CLIENT_CPP_CLUSTER_CLUSTER_DIRECTORY_H_
