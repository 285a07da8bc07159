// Real text for the demo, from given files or from what most machines have.
#ifndef ATTIC_CLIENT_CLI_DEMO_HAYSTACK_H_
#define ATTIC_CLIENT_CLI_DEMO_HAYSTACK_H_

#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace attic::cli {

struct Haystack {
  std::string text;  // printable ASCII, tabs and line ends only
  size_t files = 0;  // read for it
};

// Exactly `bytes` bytes: the files one after another, what is not ASCII text left out.
//   NOT_FOUND when a file cannot be read; INVALID_ARGUMENT when they hold too little text
absl::StatusOr<Haystack> ReadHaystack(const std::vector<std::string>& files, size_t bytes);

// The same from text found below `roots`, in order of path, at most kFoundFileBytesMax of each
// file. Files that are not mostly ASCII are passed over.
absl::StatusOr<Haystack> FindHaystack(const std::vector<std::filesystem::path>& roots,
                                      size_t bytes);
inline constexpr size_t kFoundFileBytesMax = 60'000;

// Folders with English text and source code: the Python library, licenses, documentation, Perl.
std::vector<std::filesystem::path> DefaultTextRoots();

}  // namespace attic::cli

#endif  // ATTIC_CLIENT_CLI_DEMO_HAYSTACK_H_
