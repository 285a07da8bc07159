// A session under load: written to a cluster and, first, to a store in this process that knows the
// right answers.
#ifndef ATTIC_TESTS_CLUSTER_LOAD_SESSION_H_
#define ATTIC_TESTS_CLUSTER_LOAD_SESSION_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "client/cpp/client.h"

namespace attic {

struct LoadShape {
  uint32_t layers = 2;
  uint32_t q_heads = 4;
  uint32_t kv_heads = 2;
  uint32_t head_dim = 32;
  size_t batch_tokens = 64;
  Replication replication;
  Durability durability = Durability::kMemory;
};

// What came of asking once.
struct Asked {
  absl::Status status;
  bool wrong = false;
  std::string what;  // where wrong
};

// One thread writes, any number ask.
class LoadSession {
 public:
  // Opens the session in both. `content_seed`: what is written is a function of it and the
  // position.
  static absl::StatusOr<std::unique_ptr<LoadSession>> Open(Client& cluster, Client& oracle,
                                                           const std::string& id,
                                                           uint64_t content_seed,
                                                           const LoadShape& shape);

  // Writes the next batch to every layer, and returns when it is acknowledged. After an error the
  // same batch is written by the next call.
  absl::Status WriteBatch(absl::Time deadline);

  // Asks about positions below what was acknowledged when it was called, exactly or through the
  // index, and compares with the right answer. The cluster's part of it took `took`.
  Asked Ask(std::mt19937_64& random, AttendMode mode, absl::Time deadline, absl::Duration& took);

  int64_t acknowledged() const { return acknowledged_; }
  const std::string& id() const { return id_; }

 private:
  LoadSession(Client& cluster, Client& oracle, std::string id, uint64_t content_seed,
              const LoadShape& shape)
      : cluster_(cluster),
        oracle_(oracle),
        id_(std::move(id)),
        content_seed_(content_seed),
        shape_(shape) {}

  absl::Status Send(int64_t begin, absl::Time deadline);
  absl::Status AppendTo(AppendStream& stream, int64_t begin) const;

  Client& cluster_;
  Client& oracle_;
  const std::string id_;
  const uint64_t content_seed_;
  const LoadShape shape_;
  std::unique_ptr<AppendStream> stream_;
  std::unique_ptr<AppendStream> oracle_stream_;
  int64_t in_oracle_ = 0;
  std::atomic<int64_t> acknowledged_ = 0;
};

}  // namespace attic

#endif  // ATTIC_TESTS_CLUSTER_LOAD_SESSION_H_
