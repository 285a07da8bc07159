// A folder for the files of a test.
#ifndef ATTIC_TESTS_SUPPORT_TEMPORARY_FOLDER_H_
#define ATTIC_TESTS_SUPPORT_TEMPORARY_FOLDER_H_

#include <stdlib.h>

#include <cstddef>
#include <filesystem>
#include <iterator>
#include <string>
#include <system_error>

#include "base/check.h"

namespace attic {

// A new folder among the machine's temporary files (TMPDIR), removed with what is in it when the
// object goes: after whatever has files open there.
class TemporaryFolder {
 public:
  TemporaryFolder()
      : path_((std::filesystem::temp_directory_path() / "attic_test_XXXXXX").string()) {
    ATTIC_CHECK(mkdtemp(path_.data()) != nullptr);
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::string& path() const { return path_; }
  // The path of a file or folder in it, there or not.
  std::string file(const std::string& name) const { return path_ + "/" + name; }
  size_t file_count() const {
    const std::filesystem::directory_iterator files(path_);
    return static_cast<size_t>(std::distance(begin(files), end(files)));
  }

 private:
  std::string path_;
};

}  // namespace attic

#endif  // ATTIC_TESTS_SUPPORT_TEMPORARY_FOLDER_H_
