// A random workload on a session store, told operation by operation to somebody who may outlive the
// store's process.
#ifndef ATTIC_TESTS_FAULT_SESSION_WORKLOAD_H_
#define ATTIC_TESTS_FAULT_SESSION_WORKLOAD_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "rocksdb/file_system.h"
#include "server/session/session_store.h"
#include "tests/unit/session/session_test_data.h"

namespace attic {

// A store of short segments and small buffers, so that a few hundred tokens use every kind of file.
SessionStoreOptions FaultOptions(const std::string& directory,
                                 std::shared_ptr<rocksdb::FileSystem> file_system);

// Of every session of a workload.
Fingerprint WorkloadFingerprint();
const std::vector<uint32_t>& WorkloadLayers();

// What is appended follows from a number, so that it need not be sent along.
Tokens ContentOf(uint64_t seed, size_t count);

struct Operation {
  enum class Kind : char {
    kOpen = 'o',
    kAppend = 'a',
    kFork = 'f',
    kTruncate = 't',
    kClose = 'c',
    kFlush = 's',
    kDescribe = 'd',
    kWait = 'w',  // for builds
  };
  Kind kind = Kind::kDescribe;
  std::string id;
  uint32_t layer = 0;    // of an append
  int64_t position = 0;  // where an append begins; of a fork or truncation
  int64_t count = 0;     // of an append
  uint64_t content = 0;  // of an append
  std::string new_id;    // of a fork
  bool durable = true;   // of what is opened or forked

  // One line, without its end.
  std::string Encode() const;
  static Operation Decode(const std::string& line);
};

// What the store said of a session once an operation was done.
struct Outcome {
  struct Layer {
    uint32_t layer = 0;
    int64_t watermark = 0;
    int64_t durable_watermark = 0;
  };
  std::vector<Layer> layers;  // those the answer was about

  std::string Encode() const;
  static Outcome Decode(const std::string& line);
};

// Hears of an operation before it is begun, and of what was acknowledged once it is done.
class WorkloadListener {
 public:
  virtual ~WorkloadListener() = default;
  virtual void Begin(const Operation& operation) = 0;
  virtual void Done(const Outcome& outcome) = 0;
};

// Does an operation. OK is all that is expected of a store without faults.
absl::StatusOr<Outcome> Execute(SessionStore& store, const Operation& operation);

// Knows of the sessions what the store says of them, so it can go on with a store that was opened
// again.
class Workload {
 public:
  // Names of sessions end in numbers from `first_id` on. Borrows both.
  Workload(uint64_t seed, int first_id, SessionStore& store, WorkloadListener& listener);

  // Does one operation. What the store said.
  absl::Status Step();
  int next_id() const { return next_id_; }

 private:
  Operation Choose();
  int64_t Below(int64_t bound);

  std::mt19937_64 random_;
  int next_id_;
  SessionStore& store_;
  WorkloadListener& listener_;
};

}  // namespace attic

#endif  // ATTIC_TESTS_FAULT_SESSION_WORKLOAD_H_
