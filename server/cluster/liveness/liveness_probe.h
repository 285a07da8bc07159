// Finds out that a process is gone by connecting to where it listened.
#ifndef ATTIC_SERVER_CLUSTER_LIVENESS_LIVENESS_PROBE_H_
#define ATTIC_SERVER_CLUSTER_LIVENESS_LIVENESS_PROBE_H_

#include <poll.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/time.h"
#include "base/mutex.h"
#include "server/cluster/liveness/address_resolver.h"
#include "server/cluster/liveness/socket_address.h"

namespace attic {

// A process that is to be watched.
struct ProbeTarget {
  std::string node_id;
  std::string address;       // HOST:PORT, at which it listens
  std::string boot_id;       // another one: another process, of which nothing is known
  int64_t registration = 0;  // another one: refusals before do not count
  // Between two connections, and at most before the first; a quarter more or less by chance.
  absl::Duration period;
  // No more connections once it has accepted one.
  bool until_accepted = false;

  bool operator==(const ProbeTarget&) const = default;
};

// As connect(2), of a socket that does not wait.
using ConnectFunction = std::function<int(int socket, const sockaddr* address, socklen_t size)>;

struct LivenessProbeOptions {
  // The second refusal is asked for at least so long after the first; up to half more by chance.
  absl::Duration confirm_after = absl::Milliseconds(100);
  // A connection that is not there by then says nothing.
  absl::Duration connect_timeout = absl::Milliseconds(500);
  // Between two connections to what has not answered: at least unanswered_min after one that says
  // nothing; for a process that never accepted one doubling up to unanswered_max.
  absl::Duration unanswered_min = absl::Milliseconds(500);
  absl::Duration unanswered_max = absl::Seconds(30);
  size_t in_flight_max = 128;  // connections that are being made
  // Of names of hosts; numbers are not asked for. Called by a thread that may outlive the probe.
  ResolveFunction resolve = ResolveAddress;
  ConnectFunction connect;  // null: the system's
};

// Connects to each target again and again, and closes the connection at once. A target is gone
// when the address at which this process has accepted a connection before refuses two in a row
// (ECONNREFUSED: the host answers, and nothing listens there). Whatever else happens to a
// connection says nothing, and neither does an address that never accepted one: it may be another
// process's, as after a name server's late answer, or behind something that refuses by itself.
//
// Thread-safe. Has a thread of its own, which holds no lock while it uses the network.
class LivenessProbe {
 public:
  // Called on the probe's thread, which meanwhile does nothing else: for each pair of refusals, so
  // again and again while the target stays one. Must not destroy the probe.
  using OnGone = std::function<void(const ProbeTarget& target)>;

  LivenessProbe(LivenessProbeOptions options, OnGone on_gone);
  // Waits for on_gone, but not for connections or name servers.
  ~LivenessProbe();
  LivenessProbe(const LivenessProbe&) = delete;
  LivenessProbe& operator=(const LivenessProbe&) = delete;

  // From now on these, one for each node id. What is known of a process stays known as long as it
  // is among them. Does not wait.
  void SetTargets(std::vector<ProbeTarget> targets);

 private:
  using Clock = std::chrono::steady_clock;
  enum class Outcome { kAccepted, kRefused, kNothing };

  struct Probe {
    ProbeTarget target;
    std::vector<SocketAddress> addresses;  // that may be its; empty: not resolved
    size_t next_address = 0;
    bool resolving = false;
    bool accepted = false;  // by addresses[next_address]
    int refusals = 0;       // in a row, at that address
    Clock::duration backoff{};
    Clock::time_point due;
    OwnedDescriptor socket;  // of a connection that is being made
    Clock::time_point gives_up;

    bool rests() const { return accepted && target.until_accepted; }
    bool waits() const { return socket.number() < 0 && !resolving && !rests(); }  // to be due
  };
  // Wakes the thread; outlives the probe while a name is being resolved.
  struct Wake;

  void Run();
  bool TakeTargets() ATTIC_EXCLUDES(mutex_);
  void Adopt(std::vector<ProbeTarget> targets);
  void TakeAddresses();
  void StartDue();
  void Resolve(Probe& probe);
  void Connect(Probe& probe);
  void WaitForSockets();
  void Finish(Probe& probe, Outcome outcome);
  // What became of it is not known, or the process has yet to accept its first connection.
  void BackOff(Probe& probe);
  Clock::duration Between(Clock::duration least, Clock::duration most);

  const LivenessProbeOptions options_;
  const OnGone on_gone_;
  const std::shared_ptr<Wake> wake_;

  Mutex mutex_;
  bool stopping_ ATTIC_GUARDED_BY(mutex_) = false;
  std::optional<std::vector<ProbeTarget>> new_targets_ ATTIC_GUARDED_BY(mutex_);

  // The thread's.
  AddressResolver resolver_;
  std::map<std::string, Probe> probes_;  // by node id
  std::vector<pollfd> polled_;
  std::vector<Probe*> polled_probes_;  // in the order of polled_, which has wake_ as one more, last
  size_t in_flight_ = 0;
  std::mt19937_64 random_;

  std::thread thread_;  // last: it uses the members above
};

}  // namespace attic

#endif  // ATTIC_SERVER_CLUSTER_LIVENESS_LIVENESS_PROBE_H_
