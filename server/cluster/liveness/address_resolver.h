// Names of hosts resolved without making anybody wait.
#ifndef ATTIC_SERVER_CLUSTER_LIVENESS_ADDRESS_RESOLVER_H_
#define ATTIC_SERVER_CLUSTER_LIVENESS_ADDRESS_RESOLVER_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "server/cluster/liveness/socket_address.h"

namespace attic {

using ResolveFunction = std::function<std::vector<SocketAddress>(const std::string& address)>;

// Thread-safe. One name at a time is resolved, by a thread that is not waited for by anybody: name
// servers that do not answer hold it for many seconds, and nothing interrupts it. It ends when it
// is answered.
class AddressResolver {
 public:
  static constexpr size_t kAskedMax = 8192;

  // `on_resolved` is called after each name by that thread, without locks held. Both live until the
  // resolver is gone and a call of theirs that was running has returned.
  AddressResolver(ResolveFunction resolve, std::function<void()> on_resolved);
  ~AddressResolver();
  AddressResolver(const AddressResolver&) = delete;
  AddressResolver& operator=(const AddressResolver&) = delete;

  struct Resolved {
    std::string address;
    std::vector<SocketAddress> addresses;  // none: the name is not known, or nobody said
  };

  // False when kAskedMax names wait already.
  bool Ask(const std::string& address);
  // What was resolved since the last call.
  std::vector<Resolved> Take();

 private:
  struct State;
  static void Run(const std::shared_ptr<State>& state);

  const std::shared_ptr<State> state_;
};

}  // namespace attic

#endif  // ATTIC_SERVER_CLUSTER_LIVENESS_ADDRESS_RESOLVER_H_
