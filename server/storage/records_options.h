// How RocksDB is set up to keep the records, and why.
#ifndef ATTIC_SERVER_STORAGE_RECORDS_OPTIONS_H_
#define ATTIC_SERVER_STORAGE_RECORDS_OPTIONS_H_

#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "rocksdb/db.h"
#include "rocksdb/env.h"
#include "rocksdb/listener.h"
#include "rocksdb/options.h"

namespace attic {

// Keeps the last complaints of RocksDB; writes no file. Thread-safe.
class ComplaintLogger final : public rocksdb::Logger {
 public:
  static constexpr size_t kLinesMax = 8;

  ComplaintLogger() : rocksdb::Logger(rocksdb::InfoLogLevel::WARN_LEVEL) {}
  using rocksdb::Logger::Logv;
  void Logv(const char* format, va_list arguments) override;
  // Separated by "; ".
  std::string Complaints() const;

 private:
  mutable Mutex mutex_;
  std::vector<std::string> lines_ ATTIC_GUARDED_BY(mutex_);
};

rocksdb::Options RecordsOptions(rocksdb::Env* env, uint64_t buffer_bytes,
                                const std::shared_ptr<ComplaintLogger>& logger,
                                const std::shared_ptr<rocksdb::EventListener>& listener);

}  // namespace attic

#endif  // ATTIC_SERVER_STORAGE_RECORDS_OPTIONS_H_
