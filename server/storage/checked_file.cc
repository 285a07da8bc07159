#include "server/storage/checked_file.h"

#include <xxhash.h>

#include <cstdint>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "rocksdb/file_system.h"
#include "server/storage/file_io.h"

namespace attic {
namespace {

constexpr size_t kChecksumBytes = 8;

// Little-endian.
std::string Checksum(std::string_view content) {
  const uint64_t sum = XXH3_64bits_withSeed(content.data(), content.size(), content.size());
  std::string bytes(kChecksumBytes, '\0');
  for (size_t i = 0; i < kChecksumBytes; ++i) bytes[i] = static_cast<char>(sum >> (8 * i));
  return bytes;
}

}  // namespace

absl::Status SaveCheckedFile(const std::string& folder, const std::string& name,
                             std::string_view content) {
  return ReplaceFile(*rocksdb::FileSystem::Default(), folder, name,
                     std::string(content) + Checksum(content));
}

absl::StatusOr<std::string> LoadCheckedFile(const std::string& folder, const std::string& name,
                                            size_t bytes_max) {
  const std::string path = absl::StrCat(folder, "/", name);
  ATTIC_ASSIGN_OR_RETURN(std::string content, ReadSmallFile(*rocksdb::FileSystem::Default(), path,
                                                            bytes_max + kChecksumBytes));
  const size_t bytes = content.size() < kChecksumBytes ? 0 : content.size() - kChecksumBytes;
  const std::string sum = content.substr(bytes);
  content.resize(bytes);
  if (sum != Checksum(content)) return absl::DataLossError(absl::StrCat(path, ": it is damaged"));
  return content;
}

}  // namespace attic
