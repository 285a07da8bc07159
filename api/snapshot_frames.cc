#include "api/snapshot_frames.h"

#include <cstring>
#include <span>

#include "absl/strings/str_cat.h"
#include "base/byte_codec.h"
#include "base/check.h"
// XXH3_state_t without an allocation of its own.
#define XXH_STATIC_LINKING_ONLY
#include "xxhash.h"

namespace attic {
namespace {

constexpr size_t kChecksumOffset = kSnapshotHeaderBytes - sizeof(uint64_t);
constexpr size_t kFileFieldsBytes = 24;

void AppendNumber(std::string& bytes, uint64_t number) {
  bytes.append(reinterpret_cast<const char*>(&number), sizeof(number));
}

uint64_t ChecksumIn(std::string_view header) {
  ATTIC_CHECK(header.size() == kSnapshotHeaderBytes);
  uint64_t number;
  std::memcpy(&number, header.data() + kChecksumOffset, sizeof(number));
  return number;
}

uint64_t FrameChecksum(uint64_t identity, std::string_view header, std::string_view payload) {
  XXH3_state_t state;
  XXH3_INITSTATE(&state);  // a seed left on the stack would pass for one that was prepared
  XXH3_64bits_reset_withSeed(&state, identity);
  XXH3_64bits_update(&state, header.data(), kChecksumOffset);
  if (!payload.empty()) XXH3_64bits_update(&state, payload.data(), payload.size());
  return XXH3_64bits_digest(&state);
}

}  // namespace

std::string EncodeFileHeader(std::string_view magic, uint32_t version, uint64_t identity) {
  ByteWriter writer;
  writer.Put(version);
  writer.Put(uint32_t{0});
  writer.Put(identity);
  std::string bytes = std::string(magic) + writer.Take();
  ATTIC_CHECK(bytes.size() == kFileFieldsBytes);
  bytes.resize(kChecksumOffset, '\0');
  AppendNumber(bytes, XXH3_64bits(bytes.data(), bytes.size()));
  return bytes;
}

absl::StatusOr<uint64_t> DecodeFileHeader(std::string_view bytes, std::string_view magic,
                                          uint32_t version, std::string_view what) {
  const auto damaged = [&](std::string_view where) {
    return absl::DataLossError(absl::StrCat(std::string(what), ": ", std::string(where)));
  };
  ATTIC_CHECK(bytes.size() == kSnapshotHeaderBytes);
  if (!bytes.starts_with(magic)) return damaged("it is none, or its first bytes are damaged");
  if (ChecksumIn(bytes) != XXH3_64bits(bytes.data(), kChecksumOffset)) {
    return damaged("the checksum of its header");
  }
  ByteReader reader(std::span(bytes.data(), bytes.size()).subspan(magic.size()));
  const auto found = reader.Get<uint32_t>();
  if (found != version) {
    return absl::FailedPreconditionError(
        absl::StrCat(std::string(what), ": of version ", found, ", this program reads ", version));
  }
  const auto zero = reader.Get<uint32_t>();
  const auto identity = reader.Get<uint64_t>();
  if (zero != 0 || !EndsInZeros(bytes, kFileFieldsBytes)) return damaged("its header");
  return identity;
}

std::string EncodeFrame(uint64_t identity, std::string fields, std::string_view payload) {
  ATTIC_CHECK(fields.size() <= kChecksumOffset);
  std::string bytes = std::move(fields);
  bytes.reserve(kSnapshotHeaderBytes + payload.size());
  bytes.resize(kChecksumOffset, '\0');
  AppendNumber(bytes, FrameChecksum(identity, bytes, payload));
  bytes.append(payload);
  return bytes;
}

bool FrameIsWhole(uint64_t identity, std::string_view header, std::string_view payload) {
  return ChecksumIn(header) == FrameChecksum(identity, header, payload);
}

bool EndsInZeros(std::string_view header, size_t fields_bytes) {
  return header.substr(fields_bytes, kChecksumOffset - fields_bytes).find_first_not_of('\0') ==
         std::string_view::npos;
}

}  // namespace attic
