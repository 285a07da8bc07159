#include "gpu_worker/model/safetensors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "nlohmann/json.hpp"

namespace attic::worker {
namespace {

using Json = nlohmann::json;

constexpr size_t kLengthBytes = 8;
constexpr uint64_t kElementsMax = uint64_t{1} << 48;  // products of dimensions stay below 2^64

// A non-negative integer of the header, at most `max`.
bool ReadCount(const Json& value, uint64_t max, uint64_t& count) {
  if (!value.is_number_unsigned()) return false;
  count = value.get<uint64_t>();
  return count <= max;
}

absl::StatusOr<ElementType> ParseType(const Json& entry) {
  const auto found = entry.find("dtype");
  if (found == entry.end() || !found->is_string()) {
    return absl::InvalidArgumentError("dtype is missing");
  }
  const std::string name = found->get<std::string>();
  if (name == "F32") return ElementType::kFloat32;
  if (name == "BF16") return ElementType::kBFloat16;
  if (name == "F16") return ElementType::kFloat16;
  return absl::InvalidArgumentError(
      absl::StrCat("dtype ", name.substr(0, 16), " is not supported (F32, BF16, F16)"));
}

// One entry of the header; `data` are the bytes after it.
absl::StatusOr<TensorView> ParseTensor(const Json& entry, std::span<const std::byte> data,
                                       const SafetensorsLimits& limits) {
  if (!entry.is_object()) return absl::InvalidArgumentError("the entry is not an object");
  TensorView tensor;
  ATTIC_ASSIGN_OR_RETURN(tensor.type, ParseType(entry));
  const auto shape = entry.find("shape");
  if (shape == entry.end() || !shape->is_array() || shape->size() > limits.dimensions_max) {
    return absl::InvalidArgumentError(
        absl::StrCat("shape is not an array of at most ", limits.dimensions_max, " dimensions"));
  }
  uint64_t elements = 1;
  for (const Json& dimension : *shape) {
    uint64_t size = 0;
    if (!ReadCount(dimension, kElementsMax, size) || (size > 0 && elements > kElementsMax / size)) {
      return absl::InvalidArgumentError("shape has a dimension that is no count or is too large");
    }
    elements *= size;
    tensor.shape.push_back(size);
  }
  const auto offsets = entry.find("data_offsets");
  uint64_t begin = 0, end = 0;
  if (offsets == entry.end() || !offsets->is_array() || offsets->size() != 2 ||
      !ReadCount((*offsets)[0], data.size(), begin) ||
      !ReadCount((*offsets)[1], data.size(), end) || begin > end) {
    return absl::InvalidArgumentError(absl::StrCat("data_offsets are not a range within the ",
                                                   data.size(), " bytes after the header"));
  }
  if (end - begin != elements * ElementBytes(tensor.type)) {
    return absl::InvalidArgumentError(absl::StrCat("data_offsets span ", end - begin,
                                                   " bytes, the shape needs ",
                                                   elements * ElementBytes(tensor.type)));
  }
  tensor.data = data.subspan(begin, end - begin);
  return tensor;
}

absl::Status CheckOverlaps(const std::map<std::string, TensorView>& tensors) {
  std::vector<std::pair<std::span<const std::byte>, const std::string*>> ranges;
  for (const auto& [name, tensor] : tensors) {
    if (!tensor.data.empty()) ranges.emplace_back(tensor.data, &name);
  }
  std::sort(ranges.begin(), ranges.end(),
            [](const auto& a, const auto& b) { return a.first.data() < b.first.data(); });
  for (size_t i = 1; i < ranges.size(); ++i) {
    const auto& before = ranges[i - 1].first;
    if (before.data() + before.size() > ranges[i].first.data()) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", *ranges[i].second, ": overlaps tensor ", *ranges[i - 1].second));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<SafetensorsFile>> SafetensorsFile::Open(
    const std::string& path, const SafetensorsLimits& limits) {
  std::unique_ptr<SafetensorsFile> file(new SafetensorsFile());
  file->path_ = path;
  ATTIC_RETURN_IF_ERROR(file->Map());
  if (absl::Status status = file->ParseHeader(limits); !status.ok()) {
    return absl::Status(status.code(), absl::StrCat(path, ": ", status.message()));
  }
  return file;
}

SafetensorsFile::~SafetensorsFile() {
  if (!bytes_.empty()) munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

absl::Status SafetensorsFile::Map() {
  const int descriptor = open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) {
    return absl::NotFoundError(absl::StrCat(path_, ": ", std::strerror(errno)));
  }
  struct stat information {};
  if (fstat(descriptor, &information) != 0 || !S_ISREG(information.st_mode)) {
    close(descriptor);
    return absl::InvalidArgumentError(absl::StrCat(path_, ": not a regular file"));
  }
  const size_t size = static_cast<size_t>(information.st_size);
  void* mapping =
      size == 0 ? MAP_FAILED : mmap(nullptr, size, PROT_READ, MAP_PRIVATE, descriptor, 0);
  close(descriptor);
  if (mapping == MAP_FAILED) {
    return absl::InvalidArgumentError(absl::StrCat(path_, ": empty, or cannot be mapped"));
  }
  bytes_ = {static_cast<const std::byte*>(mapping), size};
  return absl::OkStatus();
}

absl::Status SafetensorsFile::ParseHeader(const SafetensorsLimits& limits) {
  if (bytes_.size() < kLengthBytes) {
    return absl::InvalidArgumentError("shorter than the 8 bytes of the header length");
  }
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, bytes_.data(), kLengthBytes);
  if (header_bytes > limits.header_bytes_max || header_bytes > bytes_.size() - kLengthBytes) {
    return absl::InvalidArgumentError(absl::StrCat("header length ", header_bytes,
                                                   " exceeds the file or header_bytes_max (",
                                                   limits.header_bytes_max, ")"));
  }
  const std::string_view text(reinterpret_cast<const char*>(bytes_.data()) + kLengthBytes,
                              header_bytes);
  const Json header = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!header.is_object()) return absl::InvalidArgumentError("the header is not a JSON object");
  if (header.size() > limits.tensors_max) {
    return absl::InvalidArgumentError(
        absl::StrCat("more tensors than tensors_max (", limits.tensors_max, ")"));
  }
  const std::span<const std::byte> data = bytes_.subspan(kLengthBytes + header_bytes);
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") continue;
    absl::StatusOr<TensorView> tensor = ParseTensor(entry, data, limits);
    if (!tensor.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", name.substr(0, 200), ": ", tensor.status().message()));
    }
    tensors_.emplace(name, *std::move(tensor));
  }
  return CheckOverlaps(tensors_);
}

}  // namespace attic::worker
