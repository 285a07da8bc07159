// A node whose shards are lists of numbers, and a peer that sees it through a network with faults.
#ifndef ATTIC_TESTS_UNIT_CLUSTER_REPAIR_FAKE_NODE_H_
#define ATTIC_TESTS_UNIT_CLUSTER_REPAIR_FAKE_NODE_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/mutex.h"
#include "server/cluster/repair/shard_holder.h"
#include "server/cluster/repair/shard_peer.h"

namespace attic {

inline constexpr int64_t kFakeBlockTokens = 8;

// Time that passes when somebody waits. Thread-safe.
class FakeClock {
 public:
  absl::Time Now() const {
    MutexLock lock(mutex_);
    return now_;
  }
  void Advance(absl::Duration duration) {
    MutexLock lock(mutex_);
    now_ += duration;
  }
  void AdvanceTo(absl::Time time) {
    MutexLock lock(mutex_);
    now_ = std::max(now_, time);
  }

 private:
  mutable Mutex mutex_;
  absl::Time now_ ATTIC_GUARDED_BY(mutex_) = absl::UnixEpoch() + absl::Hours(1);
};

using FakeRows = std::vector<uint64_t>;

// Thread-safe.
class FakeNode final : public ShardHolder {
 public:
  struct Shard {
    HeldShard described;  // watermark is that of the rows
    FakeRows rows;
  };

  // False when it is held already.
  bool Open(const HeldShard& shard);
  // As SessionStore::Append.
  absl::Status AppendRows(const std::string& id, int64_t begin, const FakeRows& rows);
  // Null when it is not held.
  std::unique_ptr<Shard> Find(const std::string& id) const;
  std::map<std::string, Shard> All() const;
  void Lose();  // everything
  void SetRecovering(bool recovering);
  // Snapshots that hold any rows are refused as built with other options.
  void SetOtherOptions(bool other);

  absl::StatusOr<std::vector<HeldShard>> List() override;
  absl::StatusOr<HeldShard> Describe(const std::string& id) override;
  absl::StatusOr<RowsDigest> Digest(const std::string& id, absl::Time deadline) override;
  absl::StatusOr<std::unique_ptr<ShardImport>> Import(const HeldShard& shard) override;
  absl::Status Append(const AppendBatch& batch, absl::Time deadline) override;
  absl::Status Truncate(const std::string& id, int64_t position) override;
  absl::Status Close(const std::string& id) override;

 private:
  class Import_;
  mutable Mutex mutex_;
  std::map<std::string, Shard> shards_ ATTIC_GUARDED_BY(mutex_);
  bool recovering_ ATTIC_GUARDED_BY(mutex_) = false;
  bool other_options_ ATTIC_GUARDED_BY(mutex_) = false;
};

enum class Fault : uint8_t {
  kNone,
  kUnavailable,  // before anything came
  kCut,          // an error in the middle of what comes
  kShort,        // the end in the middle of what comes
  kWrongBytes,
  kHang,  // until the deadline
};

// Thread-safe.
class FakePeer final : public ShardPeer {
 public:
  // All outlive it. fault() is asked at each call; on_call(id), at its begin and in its middle, may
  // do what others do meanwhile.
  FakePeer(FakeNode& node, FakeClock& clock) : node_(node), clock_(clock) {}
  std::function<Fault()> fault = [] { return Fault::kNone; };
  std::function<void(const std::string& id)> on_call = [](const std::string&) {};
  // Called first by whoever asks what is held.
  std::function<void()> on_inventory = [] {};
  uint64_t epoch = 1u << 30;
  std::string boot_id;
  int inventories = 0, finds = 0;  // calls so far; to be read when none is under way

  absl::StatusOr<PeerInventory> Inventory(std::span<const uint32_t> slots, uint64_t epoch,
                                          absl::Time deadline) override;
  absl::StatusOr<PeerInventory> Find(std::span<const std::string> ids, uint64_t epoch,
                                     absl::Time deadline) override;
  absl::StatusOr<RowsDigest> Digest(const std::string& id, absl::Time deadline) override;
  absl::Status ReadRows(const std::string& id, int64_t begin, int64_t end,
                        absl::Duration idle_timeout, const RowsSink& sink) override;
  absl::Status Export(const std::string& id, absl::Duration idle_timeout,
                      const BytesSink& sink) override;

 private:
  absl::Status Begin(Fault fault, absl::Time deadline);

  FakeNode& node_;
  FakeClock& clock_;
};

}  // namespace attic

#endif  // ATTIC_TESTS_UNIT_CLUSTER_REPAIR_FAKE_NODE_H_
