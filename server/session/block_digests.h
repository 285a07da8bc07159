// Checksums of the whole blocks of a session's rows, so that comparing replicas costs what came
// since they were compared last.
#ifndef ATTIC_SERVER_SESSION_BLOCK_DIGESTS_H_
#define ATTIC_SERVER_SESSION_BLOCK_DIGESTS_H_

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "base/mutex.h"

namespace attic {

// Rows change by truncation only. Thread-safe.
class BlockDigests {
 public:
  struct Known {
    std::vector<uint64_t> blocks;  // the first ones
    uint64_t history = 0;          // what Remember is to be told
  };

  // What is known is of the rows that are looked at behind it if, after that, the history is still
  // the same; it may reach beyond them.
  Known Get() const {
    MutexLock lock(mutex_);
    return {.blocks = blocks_, .history = history_};
  }

  // The first blocks, computed of rows that were looked at after Get said `history`. Does nothing
  // when something was cut off since.
  void Remember(std::vector<uint64_t> blocks, uint64_t history) {
    MutexLock lock(mutex_);
    if (history == history_ && blocks.size() > blocks_.size()) blocks_ = std::move(blocks);
  }

  // Blocks from this one on are forgotten. To be called before rows of theirs are cut off, so that
  // nobody takes them for what follows, and after, for who looked at them in between.
  void Cut(size_t first_block) {
    MutexLock lock(mutex_);
    ++history_;
    if (first_block < blocks_.size()) blocks_.resize(first_block);
  }

 private:
  mutable Mutex mutex_;
  uint64_t history_ ATTIC_GUARDED_BY(mutex_) = 0;
  std::vector<uint64_t> blocks_ ATTIC_GUARDED_BY(mutex_);
};

}  // namespace attic

#endif  // ATTIC_SERVER_SESSION_BLOCK_DIGESTS_H_
