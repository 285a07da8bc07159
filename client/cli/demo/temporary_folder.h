// A folder for the time of the demo.
#ifndef ATTIC_CLIENT_CLI_DEMO_TEMPORARY_FOLDER_H_
#define ATTIC_CLIENT_CLI_DEMO_TEMPORARY_FOLDER_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace attic::cli {

// Removed, with all that is in it, when the object goes.
class TemporaryFolder {
 public:
  // In the machine's folder for temporary files (TMPDIR); UNAVAILABLE when it cannot be made.
  static absl::StatusOr<std::unique_ptr<TemporaryFolder>> Make(const std::string& prefix);
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::string& path() const { return path_; }

 private:
  explicit TemporaryFolder(std::string path) : path_(std::move(path)) {}

  const std::string path_;
};

}  // namespace attic::cli

#endif  // ATTIC_CLIENT_CLI_DEMO_TEMPORARY_FOLDER_H_
