// What a durable store must hold, kept in memory: random operations on both, and what either holds
// written down as text, to be compared.
#ifndef ATTIC_TESTS_FAULT_STORE_MODEL_H_
#define ATTIC_TESTS_FAULT_STORE_MODEL_H_

#include <cstdint>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/storage/durable_store.h"

namespace attic {

// Everything a store holds, read back through its interface; every byte of keys, values, queries
// and segments counts. Fails as the first call that fails.
absl::StatusOr<std::string> DescribeStore(DurableStore& store);

struct ModelPiece {
  int64_t begin = 0;
  uint64_t count = 0;
  uint32_t seed = 0;  // of its content
};

struct ModelSegment {
  int64_t begin = 0;
  uint32_t seed = 0;
};

struct ModelLayer {
  std::vector<std::vector<ModelSegment>> segments;  // per kv head
  std::vector<ModelPiece> rows;
  std::vector<std::string> states;  // per kv head
  int64_t watermark() const;
  int64_t segments_end() const;  // of the shortest head
};

struct ModelSession {
  SessionRecord record;
  std::map<uint32_t, ModelLayer> layers;
};

using StoreModel = std::map<std::string, ModelSession>;  // by session id

// As DescribeStore describes a store that holds this.
std::string Describe(const StoreModel& model);

// Does random operations to a store and to a model of it.
class StoreDriver {
 public:
  struct Limits {
    size_t piece_rows_max = 40;
    bool large_pieces = false;  // some of hundreds of kilobytes
  };
  StoreDriver(uint32_t seed, Limits limits);
  explicit StoreDriver(uint32_t seed) : StoreDriver(seed, Limits()) {}

  // One operation. When it fails the model takes it as not done, and as possibly done. Returns what
  // the store said.
  absl::Status Step(DurableStore& store);
  const std::string& last_operation() const { return operation_; }

  // What the store holds unless it lost something.
  std::string Expected() const { return Describe(model_); }
  // The state after the last operation that is known to be durable, and all since, each of which a
  // crash may bring back. `durable_write` is what the store said last.
  std::set<std::string> AfterCrash(uint64_t durable_write) const;
  // After an operation that failed in a store that goes on: finds out whether it was done. False if
  // the store is in neither state.
  bool Reconcile(const std::string& found);
  // The states and what is known of them, where `found` is among them.
  std::string History(const std::string& found, uint64_t durable_write) const;
  // Goes on from what was found after a crash, which must be one of AfterCrash; false if it is not.
  bool Resume(const std::string& found, uint64_t durable_write);

 private:
  struct State {
    StoreModel model;
    std::string operation;
    uint64_t write = 0;    // durable with this write of the store; 0 for what is durable by itself
    bool durable = false;  // known to be
  };

  absl::Status Create(DurableStore& store, bool fork);
  absl::Status Update(DurableStore& store);
  absl::Status Remove(DurableStore& store);
  absl::Status Append(DurableStore& store);
  absl::Status AddSegment(DurableStore& store);
  absl::Status Drop(DurableStore& store);
  absl::Status Replace(DurableStore& store);
  absl::Status PutState(DurableStore& store);
  absl::Status Sync(DurableStore& store);

  // Notes how an operation that leads to `next` ended.
  absl::Status Done(StoreModel next, const absl::Status& status, bool durable, uint64_t write = 0);
  size_t FirstPossible(uint64_t durable_write) const;
  ModelSession* Any(StoreModel& model);
  std::pair<uint32_t, ModelLayer*> AnyLayer(ModelSession& session);

  std::mt19937 random_;
  const Limits limits_;
  uint32_t next_seed_ = 1;
  uint32_t next_id_ = 1;
  std::string operation_;
  StoreModel model_;
  StoreModel failed_;          // had the last operation that failed been done
  std::vector<State> states_;  // in order; the first is that of an empty store
};

}  // namespace attic

#endif  // ATTIC_TESTS_FAULT_STORE_MODEL_H_
