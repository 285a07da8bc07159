#include "client/cli/bench/npy_file.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <optional>
#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace attic::cli {
namespace {

constexpr std::string_view kMagic = "\x93NUMPY";
constexpr size_t kVersionBytes = 2;

absl::Status FieldError(const std::string& name, const char* field, const std::string& problem) {
  return absl::InvalidArgumentError(absl::StrCat(name, ": ", field, ": ", problem));
}

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsSpace(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

// The header's text is a Python dictionary literal; this reads the small part of Python that NumPy
// writes there.
class HeaderText {
 public:
  HeaderText(const std::string& name, std::string_view text) : name_(name), text_(text) {}

  absl::StatusOr<NpyHeader> Parse() {
    if (!Take('{')) return FieldError(name_, "header", "expected '{'");
    while (!Take('}')) {
      std::string key;
      if (!TakeString(key) || !Take(':')) {
        return FieldError(name_, "header", "expected a quoted key and ':'");
      }
      ATTIC_RETURN_IF_ERROR(ParseValue(key));
      if (Take(',')) continue;
      if (!Take('}')) return FieldError(name_, "header", "expected ',' or '}'");
      break;
    }
    SkipSpace();
    if (!text_.empty()) return FieldError(name_, "header", "text after the dictionary");
    if (!type_) return FieldError(name_, "descr", "missing");
    if (!has_order_) return FieldError(name_, "fortran_order", "missing");
    if (shape_.empty()) return FieldError(name_, "shape", "missing");
    NpyHeader header;
    header.type = *type_;
    header.rows = shape_[0];
    header.columns = shape_[1];
    return header;
  }

 private:
  absl::Status ParseValue(const std::string& key) {
    if (key == "descr" && !type_) return ParseType();
    if (key == "fortran_order" && !has_order_) return ParseOrder();
    if (key == "shape" && shape_.empty()) return ParseShape();
    const bool known = key == "descr" || key == "fortran_order" || key == "shape";
    return FieldError(name_, known ? key.c_str() : "header", known ? "given twice" : "unknown key");
  }

  absl::Status ParseType() {
    std::string descr;
    if (!TakeString(descr)) return FieldError(name_, "descr", "expected a quoted type");
    if (descr == "<f4") {
      type_ = ElementType::kFloat32;
    } else if (descr == "<f2") {
      type_ = ElementType::kFloat16;
    } else {
      return FieldError(name_, "descr", "only '<f4' and '<f2' are read");
    }
    return absl::OkStatus();
  }

  absl::Status ParseOrder() {
    if (TakeWord("True")) return FieldError(name_, "fortran_order", "only C order is read");
    if (!TakeWord("False")) return FieldError(name_, "fortran_order", "expected True or False");
    has_order_ = true;
    return absl::OkStatus();
  }

  absl::Status ParseShape() {
    if (!Take('(')) return FieldError(name_, "shape", "expected '('");
    std::vector<uint64_t> shape;
    while (!Take(')')) {
      uint64_t extent = 0;
      if (!TakeNumber(extent)) return FieldError(name_, "shape", "expected a number");
      shape.push_back(extent);
      if (shape.size() > 2) break;
      if (Take(',')) continue;
      if (!Take(')')) return FieldError(name_, "shape", "expected ',' or ')'");
      break;
    }
    if (shape.size() != 2) return FieldError(name_, "shape", "expected two dimensions");
    if (shape[0] == 0 || shape[1] == 0) return FieldError(name_, "shape", "the matrix is empty");
    shape_ = std::move(shape);
    return absl::OkStatus();
  }

  void SkipSpace() {
    while (!text_.empty() && IsSpace(text_.front())) text_.remove_prefix(1);
  }

  bool Take(char c) {
    SkipSpace();
    if (text_.empty() || text_.front() != c) return false;
    text_.remove_prefix(1);
    return true;
  }

  bool TakeWord(std::string_view word) {
    SkipSpace();
    if (!text_.starts_with(word)) return false;
    text_.remove_prefix(word.size());
    return true;
  }

  // Without escapes, which no key or type has.
  bool TakeString(std::string& out) {
    SkipSpace();
    if (text_.empty() || (text_.front() != '\'' && text_.front() != '"')) return false;
    const size_t end = text_.find(text_.front(), 1);
    if (end == std::string_view::npos) return false;
    out = text_.substr(1, end - 1);
    text_.remove_prefix(end + 1);
    return true;
  }

  bool TakeNumber(uint64_t& out) {
    SkipSpace();
    if (text_.empty() || !IsDigit(text_.front())) return false;
    out = 0;
    while (!text_.empty() && IsDigit(text_.front())) {
      const uint64_t digit = text_.front() - '0';
      if (out > (std::numeric_limits<uint64_t>::max() - digit) / 10) return false;
      out = out * 10 + digit;
      text_.remove_prefix(1);
    }
    return true;
  }

  const std::string& name_;
  std::string_view text_;
  std::optional<ElementType> type_;
  bool has_order_ = false;
  std::vector<uint64_t> shape_;
};

}  // namespace

absl::StatusOr<NpyHeader> ParseNpyHeader(const std::string& name, std::span<const std::byte> file) {
  const std::string_view bytes(reinterpret_cast<const char*>(file.data()), file.size());
  if (!bytes.starts_with(kMagic)) return FieldError(name, "magic", "not a .npy file");
  if (bytes.size() < kMagic.size() + kVersionBytes) return FieldError(name, "version", "missing");
  const auto at = [&](size_t i) { return static_cast<uint64_t>(file[i]); };
  const uint64_t major = at(kMagic.size());
  if (major != 1 && major != 2) {
    return FieldError(name, "version", absl::StrCat(major, " is not 1 or 2"));
  }
  const size_t length_offset = kMagic.size() + kVersionBytes;
  const size_t length_bytes = major == 1 ? 2 : 4;
  if (bytes.size() < length_offset + length_bytes) {
    return FieldError(name, "header length", "missing");
  }
  uint64_t length = 0;
  for (size_t i = 0; i < length_bytes; ++i) length |= at(length_offset + i) << (8 * i);
  if (length > kNpyHeaderBytesMax) {
    return FieldError(name, "header length", absl::StrCat(length, " exceeds ", kNpyHeaderBytesMax));
  }
  const size_t text_offset = length_offset + length_bytes;
  if (bytes.size() < text_offset + length) {
    return FieldError(name, "header", "the file ends inside it");
  }
  ATTIC_ASSIGN_OR_RETURN(NpyHeader header,
                         HeaderText(name, bytes.substr(text_offset, length)).Parse());
  if (header.rows > kNpyDataBytesMax / ElementBytes(header.type) / header.columns) {
    return absl::ResourceExhaustedError(
        absl::StrCat(name, ": shape: more data than ", kNpyDataBytesMax, " bytes"));
  }
  header.data_offset = text_offset + length;
  return header;
}

absl::StatusOr<NpyMatrix> ReadNpyMatrix(const std::string& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  const std::streamoff end = file ? static_cast<std::streamoff>(file.tellg()) : -1;
  if (end < 0) return absl::NotFoundError(absl::StrCat(path, ": cannot be opened"));
  const auto file_bytes = static_cast<uint64_t>(end);
  const size_t prefix_max = kMagic.size() + kVersionBytes + 4 + kNpyHeaderBytesMax;
  std::vector<std::byte> prefix(std::min<uint64_t>(file_bytes, prefix_max));
  file.seekg(0);
  file.read(reinterpret_cast<char*>(prefix.data()), static_cast<std::streamsize>(prefix.size()));
  if (!file) return absl::UnavailableError(absl::StrCat(path, ": cannot be read"));
  NpyMatrix matrix;
  ATTIC_ASSIGN_OR_RETURN(matrix.header, ParseNpyHeader(path, prefix));
  const uint64_t data_bytes = matrix.header.data_bytes();
  if (file_bytes - matrix.header.data_offset != data_bytes) {
    return FieldError(path, "data",
                      absl::StrCat("the shape needs ", data_bytes, " bytes, the file has ",
                                   file_bytes - matrix.header.data_offset));
  }
  matrix.data.resize(data_bytes);
  file.seekg(static_cast<std::streamoff>(matrix.header.data_offset));
  file.read(reinterpret_cast<char*>(matrix.data.data()), static_cast<std::streamsize>(data_bytes));
  if (!file) return absl::UnavailableError(absl::StrCat(path, ": cannot be read"));
  if (!AllFinite(matrix.data.data(), matrix.header.type,
                 matrix.data.size() / ElementBytes(matrix.header.type))) {
    return FieldError(path, "data", "holds an infinity or NaN");
  }
  return matrix;
}

}  // namespace attic::cli
