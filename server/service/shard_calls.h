// Many calls of one message, side by side.
#ifndef ATTIC_SERVER_SERVICE_SHARD_CALLS_H_
#define ATTIC_SERVER_SERVICE_SHARD_CALLS_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "api/prefix_hashes.h"
#include "attic/v1/shard.pb.h"
#include "server/cluster/slot_gate.h"
#include "server/service/call_metrics.h"
#include "server/session/session_store.h"

namespace attic {

// What the call counts as: the method of SessionService that does the same. kCall for one that is
// none, or of a later version.
Method MethodOf(const v1::ShardCall& call);

// Answers single calls; no gRPC. Borrows what it is given. Thread-safe.
class ShardCaller {
 public:
  // `shared_hashes` stand for those of every open and extend_prefix whose own are empty.
  ShardCaller(SessionStore& store, SlotGate& gate, uint64_t sender_epoch,
              std::vector<PrefixHash> shared_hashes)
      : store_(store),
        gate_(gate),
        sender_epoch_(sender_epoch),
        shared_hashes_(std::move(shared_hashes)) {}

  // Passes the gate, then does what is asked. `result` gets what came of it.
  void Answer(const v1::ShardCall& call, absl::Time deadline, v1::ShardResult& result) const;

 private:
  absl::Status Do(const v1::ShardCall& call, absl::Time deadline, v1::ShardResult& result) const;
  absl::StatusOr<SessionDescription> Open(const SlotPass& pass,
                                          const v1::OpenRequest& request) const;
  absl::StatusOr<SessionDescription> Change(const v1::ShardCall& call, absl::Time deadline) const;
  // To be held while a call truncates or closes the session; null where nothing is repaired.
  std::shared_ptr<void> Changing(const std::string& session_id) const;
  absl::StatusOr<std::vector<PrefixHash>> HashesOf(const std::string& own) const;

  SessionStore& store_;
  SlotGate& gate_;
  const uint64_t sender_epoch_;
  const std::vector<PrefixHash> shared_hashes_;
};

}  // namespace attic

#endif  // ATTIC_SERVER_SERVICE_SHARD_CALLS_H_
