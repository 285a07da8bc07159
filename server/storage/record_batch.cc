#include "server/storage/record_batch.h"

namespace attic {

std::string SpaceKey(RecordSpace space, std::string_view key) {
  std::string whole;
  whole.reserve(1 + key.size());
  whole.push_back(static_cast<char>(space));
  whole.append(key);
  return whole;
}

std::string SpaceEnd(RecordSpace space, std::string_view end) {
  if (!end.empty()) return SpaceKey(space, end);
  return std::string(1, static_cast<char>(static_cast<uint8_t>(space) + 1));
}

void RecordBatch::Put(RecordSpace space, std::string_view key, std::string_view value) {
  Keep(batch_.Put(SpaceKey(space, key), rocksdb::Slice(value.data(), value.size())));
}

void RecordBatch::Put(RecordSpace space, std::string_view key,
                      std::span<const rocksdb::Slice> parts) {
  const std::string whole = SpaceKey(space, key);
  const rocksdb::Slice slice = whole;
  Keep(batch_.Put(rocksdb::SliceParts(&slice, 1),
                  rocksdb::SliceParts(parts.data(), static_cast<int>(parts.size()))));
}

void RecordBatch::Delete(RecordSpace space, std::string_view key) {
  Keep(batch_.Delete(SpaceKey(space, key)));
}

}  // namespace attic
