#include "server/storage/rocksdb_status.h"

#include <gtest/gtest.h>

#include "rocksdb/io_status.h"

namespace attic {
namespace {

using rocksdb::IOStatus;
using rocksdb::Status;

TEST(RocksDbStatus, OkIsOk) {
  EXPECT_TRUE(FromRocksDb(Status::OK(), "x").ok());
  EXPECT_TRUE(FromRocksDb(IOStatus::OK(), "x").ok());
}

TEST(RocksDbStatus, CodesAreMappedAndTheContextIsNamed) {
  const struct {
    Status status;
    absl::StatusCode code;
  } cases[] = {
      {Status::NoSpace("m"), absl::StatusCode::kResourceExhausted},
      {IOStatus::NoSpace("m"), absl::StatusCode::kResourceExhausted},
      {Status::SpaceLimit(), absl::StatusCode::kResourceExhausted},
      {Status::MemoryLimit("m"), absl::StatusCode::kResourceExhausted},
      {Status::Corruption("m"), absl::StatusCode::kDataLoss},
      {Status::NotFound("m"), absl::StatusCode::kNotFound},
      {IOStatus::PathNotFound("m"), absl::StatusCode::kNotFound},
      {Status::Busy("m"), absl::StatusCode::kFailedPrecondition},
      {Status::NotSupported("m"), absl::StatusCode::kFailedPrecondition},
      {IOStatus::IOError("While lock file: /d/LOCK", "Resource temporarily unavailable"),
       absl::StatusCode::kFailedPrecondition},
      {IOStatus::IOError("lock hold by current process, acquire time 1", "m"),
       absl::StatusCode::kFailedPrecondition},
      {Status::InvalidArgument("m"), absl::StatusCode::kInternal},
      {IOStatus::IOError("While pread: /blocks/1", "Input/output error"),
       absl::StatusCode::kUnavailable},
      {Status::Aborted("m"), absl::StatusCode::kUnavailable},
  };
  for (const auto& c : cases) {
    const absl::Status status = FromRocksDb(c.status, "the/file");
    EXPECT_EQ(status.code(), c.code) << status;
    EXPECT_EQ(std::string(status.message()).find("the/file: "), 0u) << status;
  }
}

}  // namespace
}  // namespace attic
