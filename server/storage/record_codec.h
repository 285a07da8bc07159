// What the keys and values of the records in RocksDB are made of. DIRECTORY.md says what every byte
// means. Nothing read back is trusted: every length is checked before it is used, and every value
// carries a checksum over its key and itself.
#ifndef ATTIC_SERVER_STORAGE_RECORD_CODEC_H_
#define ATTIC_SERVER_STORAGE_RECORD_CODEC_H_

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/storage/durable_store.h"

namespace attic {

// What a record is. Part of its checksum: one kind does not pass for another.
enum class RecordKind : uint8_t {
  kCounter = 1,
  kSession = 2,
  kRows = 3,
  kRowsData = 4,
  kSegment = 5,
  kHeadState = 6,
};

// Appends little-endian numbers and strings to a value.
class RecordWriter {
 public:
  void U8(uint8_t value) { bytes_.push_back(static_cast<char>(value)); }
  void U32(uint32_t value) { Number(value, sizeof(value)); }
  void U64(uint64_t value) { Number(value, sizeof(value)); }
  void I64(int64_t value) { U64(static_cast<uint64_t>(value)); }
  void F32(float value);
  void String(std::string_view value);  // its length in 32 bits, then its bytes

  // The value with its checksum behind it.
  std::string Seal(RecordKind kind, std::string_view key) &&;

 private:
  void Number(uint64_t value, size_t bytes);

  std::string bytes_;
};

// Reads what RecordWriter wrote. After the first read past the end, ok() is false and every read
// gives zero or nothing. Borrows `bytes`.
class RecordReader {
 public:
  explicit RecordReader(std::string_view bytes) : rest_(bytes) {}

  uint8_t U8() { return static_cast<uint8_t>(Number(1)); }
  uint32_t U32() { return static_cast<uint32_t>(Number(4)); }
  uint64_t U64() { return Number(8); }
  int64_t I64() { return static_cast<int64_t>(Number(8)); }
  float F32();
  std::string String();

  bool ok() const { return ok_; }
  size_t left() const { return rest_.size(); }
  // Everything was there, and nothing else.
  bool Done() const { return ok_ && rest_.empty(); }

 private:
  uint64_t Number(size_t bytes);

  std::string_view rest_;
  bool ok_ = true;
};

// The value without its checksum, which was compared; empty when it does not match. Borrows.
std::optional<std::string_view> Unseal(RecordKind kind, std::string_view key,
                                       std::string_view sealed);

// XXH3-64 over a kind, a key and parts of a value.
uint64_t RecordChecksum(RecordKind kind, std::string_view key,
                        std::initializer_list<std::string_view> parts);

// --- Keys: big-endian, so that their order is that of the numbers.

std::string SessionKey(uint64_t session_key);
std::string LayerKey(uint64_t session_key, uint32_t layer);
std::string RowsKey(uint64_t session_key, uint32_t layer, int64_t begin);
// The checksum in it makes it the key of this content alone: so data can be written before the
// record that refers to them, beside those that they are going to replace.
std::string RowsDataKey(std::string_view rows_key, uint64_t data_checksum);
std::string HeadKey(const HeadName& head);
std::string SegmentKey(const HeadName& head, int64_t begin);
// The smallest key behind all that begin with `prefix`; empty if there is none.
std::string EndOfPrefix(std::string prefix);

// What is behind `prefix_bytes` of a key, as numbers of 4 and 8 bytes.
uint32_t KeyU32(std::string_view key, size_t offset);
uint64_t KeyU64(std::string_view key, size_t offset);

constexpr size_t kSessionKeyBytes = 8;
constexpr size_t kLayerKeyBytes = 12;
constexpr size_t kRowsKeyBytes = 20;
constexpr size_t kHeadKeyBytes = 16;
constexpr size_t kSegmentKeyBytes = 24;

// --- Values. Encoded ones are sealed; decoding gives DATA_LOSS saying what is wrong.

std::string EncodeCounter(std::string_view key, uint64_t value);
absl::StatusOr<uint64_t> DecodeCounter(std::string_view key, std::string_view sealed);

std::string EncodeSession(std::string_view key, const SessionRecord& record);
absl::StatusOr<SessionRecord> DecodeSession(std::string_view key, std::string_view sealed);

// A reference and the identity of the file it means (SegmentFile::identity).
struct SegmentEntry {
  SegmentReference reference;
  uint64_t identity = 0;
};
std::string EncodeSegment(std::string_view key, const SegmentEntry& entry);
absl::StatusOr<SegmentEntry> DecodeSegment(std::string_view key, std::string_view sealed);

std::string EncodeHeadState(std::string_view key, const std::string& state);
absl::StatusOr<std::string> DecodeHeadState(std::string_view key, std::string_view sealed);

// Bytes of the keys, the values or the query sample of one record of rows, at most; together they
// stay below the 4 GiB that a value may have in RocksDB.
constexpr uint64_t kRowsBytesMax = uint64_t{1} << 30;

// What is known of rows without their data.
struct RowsHeader {
  int64_t begin = 0;
  uint64_t count = 0;
  uint64_t keys_bytes = 0;
  uint64_t values_bytes = 0;
  uint64_t sample_floats = 0;
  uint64_t data_checksum = 0;

  int64_t end() const { return begin + static_cast<int64_t>(count); }
  uint64_t data_bytes() const { return keys_bytes + values_bytes + sample_floats * sizeof(float); }
};

// The header of rows that are to be stored under `key`; reads all of them.
RowsHeader HeaderOf(std::string_view key, const RowsRecord& rows);
std::string EncodeRows(std::string_view key, const RowsHeader& header);
absl::StatusOr<RowsHeader> DecodeRows(std::string_view key, std::string_view sealed);
// Compares the length and the checksum of rows' data with their header.
absl::Status CheckRowsData(std::string_view key, const RowsHeader& header, std::string_view data);

}  // namespace attic

#endif  // ATTIC_SERVER_STORAGE_RECORD_CODEC_H_
