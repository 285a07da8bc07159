#include "client/cli/demo/haystack.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <set>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "client/cli/text_format.h"

namespace attic::cli {
namespace {

namespace fs = std::filesystem;

constexpr double kForeignShareMax = 0.02;  // of a found file's bytes

bool IsText(char c) { return (c >= 0x20 && c < 0x7f) || c == '\n' || c == '\t'; }

// Up to bytes_max bytes of the file, and of those the text.
absl::StatusOr<std::string> ReadText(const fs::path& path, size_t bytes_max, double* text_share) {
  std::error_code error;
  const bool is_file = fs::is_regular_file(path, error);
  std::ifstream file(path, std::ios::binary);
  if (!is_file || !file) {
    const std::string reason = error              ? error.message()
                               : fs::exists(path) ? "not a readable file"
                                                  : "no such file";
    return absl::NotFoundError(absl::StrCat(path.string(), ": ", reason));
  }
  const size_t file_bytes = fs::file_size(path, error);
  std::string text(error ? 0 : std::min(bytes_max, file_bytes), '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  const size_t read = text.size();
  std::erase_if(text, [](char c) { return !IsText(c); });
  *text_share = read == 0 ? 0 : static_cast<double>(text.size()) / static_cast<double>(read);
  return text;
}

absl::Status TooLittle(size_t found, size_t files, size_t bytes, const char* advice) {
  return absl::InvalidArgumentError(absl::StrCat(
      "too little text: ", FormatCount(static_cast<int64_t>(bytes)), " bytes needed, ",
      FormatCount(static_cast<int64_t>(found)), " found in ", files, " files; ", advice));
}

bool HasTextSuffix(const fs::path& path) {
  static const std::set<std::string> kSuffixes = {"",    ".html", ".md", ".pod",
                                                  ".py", ".rst",  ".txt"};
  return kSuffixes.contains(path.extension().string());
}

// Paths of regular files below root, sorted; unreadable folders are passed over.
std::vector<fs::path> FilesBelow(const fs::path& root) {
  std::vector<fs::path> paths;
  std::error_code error;
  fs::recursive_directory_iterator it(root, fs::directory_options::skip_permission_denied, error);
  for (; !error && it != fs::recursive_directory_iterator(); it.increment(error)) {
    std::error_code entry_error;
    if (it->is_symlink(entry_error) || !it->is_regular_file(entry_error)) continue;
    if (HasTextSuffix(it->path())) paths.push_back(it->path());
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

}  // namespace

absl::StatusOr<Haystack> ReadHaystack(const std::vector<std::string>& files, size_t bytes) {
  Haystack haystack;
  for (const std::string& file : files) {
    double text_share = 0;
    // Every file is opened, also when the text is complete, so that a wrong path is reported.
    const size_t wanted = bytes - haystack.text.size();
    ATTIC_ASSIGN_OR_RETURN(const std::string text,
                           ReadText(file, 2 * wanted + kFoundFileBytesMax, &text_share));
    haystack.text.append(text, 0, wanted);
    ++haystack.files;
  }
  if (haystack.text.size() < bytes) {
    return TooLittle(haystack.text.size(), haystack.files, bytes,
                     "give more files with --text, or fewer --tokens");
  }
  return haystack;
}

absl::StatusOr<Haystack> FindHaystack(const std::vector<fs::path>& roots, size_t bytes) {
  Haystack haystack;
  for (const fs::path& root : roots) {
    for (const fs::path& path : FilesBelow(root)) {
      if (haystack.text.size() == bytes) return haystack;
      double text_share = 0;
      const absl::StatusOr<std::string> text = ReadText(path, kFoundFileBytesMax, &text_share);
      if (!text.ok() || text_share < 1 - kForeignShareMax) continue;
      haystack.text.append(*text, 0, bytes - haystack.text.size());
      ++haystack.files;
    }
  }
  if (haystack.text.size() < bytes) {
    return TooLittle(haystack.text.size(), haystack.files, bytes,
                     "give text files with --text, or fewer --tokens");
  }
  return haystack;
}

std::vector<fs::path> DefaultTextRoots() {
  std::vector<fs::path> roots;
  std::error_code error;
  fs::directory_iterator it("/usr/lib", error);
  for (; !error && it != fs::directory_iterator(); it.increment(error)) {
    if (it->path().filename().string().starts_with("python3")) roots.push_back(it->path());
  }
  std::sort(roots.begin(), roots.end());
  for (const char* folder : {"common-licenses", "doc", "perl"}) {
    roots.push_back(fs::path("/usr/share") / folder);
  }
  return roots;
}

}  // namespace attic::cli
