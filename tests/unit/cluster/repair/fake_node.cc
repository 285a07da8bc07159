#include "tests/unit/cluster/repair/fake_node.h"

#include <algorithm>
#include <cstring>
#include <span>
#include <utility>

#include "base/status_macros.h"

namespace attic {
namespace {

absl::Status NoShard(const std::string& id) { return absl::NotFoundError("no shard " + id); }

uint64_t HashOf(std::span<const uint64_t> rows) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const uint64_t row : rows) {
    hash = (hash ^ row) * 0x9E3779B97F4A7C15;
    hash ^= hash >> 29;
  }
  return hash | 1;  // 0 stands for no rows
}

// Checked, as a snapshot is.
std::string Snapshot(const FakeRows& rows) {
  std::string bytes(rows.size() * sizeof(uint64_t), '\0');
  if (!rows.empty()) std::memcpy(bytes.data(), rows.data(), bytes.size());
  const uint64_t hash = HashOf(rows);
  bytes.append(reinterpret_cast<const char*>(&hash), sizeof(hash));
  return bytes;
}

}  // namespace

bool FakeNode::Open(const HeldShard& shard) {
  MutexLock lock(mutex_);
  HeldShard empty = shard;
  empty.watermark = 0;
  return shards_.try_emplace(shard.session_id, Shard{.described = empty}).second;
}

absl::Status FakeNode::AppendRows(const std::string& id, int64_t begin, const FakeRows& rows) {
  MutexLock lock(mutex_);
  const auto found = shards_.find(id);
  if (found == shards_.end()) return NoShard(id);
  FakeRows& held = found->second.rows;
  if (begin > static_cast<int64_t>(held.size())) return absl::OutOfRangeError("a gap");
  for (size_t i = 0; i < rows.size(); ++i) {
    const size_t position = static_cast<size_t>(begin) + i;
    if (position < held.size() && held[position] != rows[i]) {
      return absl::AlreadyExistsError("other content");
    }
  }
  const size_t overlap = std::min(rows.size(), held.size() - static_cast<size_t>(begin));
  held.insert(held.end(), rows.begin() + static_cast<ptrdiff_t>(overlap), rows.end());
  found->second.described.watermark = static_cast<int64_t>(held.size());
  return absl::OkStatus();
}

std::unique_ptr<FakeNode::Shard> FakeNode::Find(const std::string& id) const {
  MutexLock lock(mutex_);
  const auto found = shards_.find(id);
  return found == shards_.end() ? nullptr : std::make_unique<Shard>(found->second);
}

std::map<std::string, FakeNode::Shard> FakeNode::All() const {
  MutexLock lock(mutex_);
  return shards_;
}

void FakeNode::Lose() {
  MutexLock lock(mutex_);
  shards_.clear();
}

void FakeNode::SetRecovering(bool recovering) {
  MutexLock lock(mutex_);
  recovering_ = recovering;
}

absl::StatusOr<std::vector<HeldShard>> FakeNode::List() {
  MutexLock lock(mutex_);
  if (recovering_) return absl::UnavailableError("recovering");
  std::vector<HeldShard> list;
  for (const auto& [id, shard] : shards_) list.push_back(shard.described);
  return list;
}

void FakeNode::SetOtherOptions(bool other) {
  MutexLock lock(mutex_);
  other_options_ = other;
}

absl::StatusOr<HeldShard> FakeNode::Describe(const std::string& id) {
  MutexLock lock(mutex_);
  if (recovering_) return absl::UnavailableError("recovering");
  const auto found = shards_.find(id);
  if (found == shards_.end()) return NoShard(id);
  return found->second.described;
}

absl::StatusOr<RowsDigest> FakeNode::Digest(const std::string& id, absl::Time) {
  MutexLock lock(mutex_);
  const auto found = shards_.find(id);
  if (found == shards_.end()) return NoShard(id);
  std::span<const uint64_t> rows = found->second.rows;
  RowsDigest digest{.watermark = static_cast<int64_t>(rows.size())};
  for (; rows.size() >= kFakeBlockTokens; rows = rows.subspan(kFakeBlockTokens)) {
    digest.blocks.push_back(HashOf(rows.first(kFakeBlockTokens)));
  }
  if (!rows.empty()) digest.rest = HashOf(rows);
  return digest;
}

class FakeNode::Import_ final : public ShardImport {
 public:
  Import_(FakeNode& node, HeldShard shard) : node_(node), shard_(std::move(shard)) {}
  absl::Status Write(std::string_view bytes) override {
    bytes_.append(bytes);
    return absl::OkStatus();
  }
  absl::Status Finish() override {
    FakeRows rows(bytes_.size() / sizeof(uint64_t));
    if (!rows.empty()) std::memcpy(rows.data(), bytes_.data(), rows.size() * sizeof(uint64_t));
    if (rows.empty() || bytes_.size() % sizeof(uint64_t) != 0) return absl::DataLossError("cut");
    const uint64_t hash = rows.back();
    rows.pop_back();
    if (hash != HashOf(rows)) return absl::DataLossError("damaged");
    MutexLock lock(node_.mutex_);
    if (node_.other_options_ && !rows.empty()) return absl::FailedPreconditionError("options");
    shard_.watermark = static_cast<int64_t>(rows.size());
    const auto added = node_.shards_.try_emplace(shard_.session_id, Shard{shard_, std::move(rows)});
    return added.second ? absl::OkStatus() : absl::AlreadyExistsError("taken");
  }
  absl::Status OpenEmpty() override {
    if (bytes_.empty()) return absl::FailedPreconditionError("nothing came");
    HeldShard empty = shard_;
    empty.watermark = 0;
    return node_.Open(empty) ? absl::OkStatus() : absl::AlreadyExistsError("taken");
  }

 private:
  FakeNode& node_;
  HeldShard shard_;
  std::string bytes_;
};

absl::StatusOr<std::unique_ptr<ShardImport>> FakeNode::Import(const HeldShard& shard) {
  return std::make_unique<Import_>(*this, shard);
}

absl::Status FakeNode::Append(const AppendBatch& batch, absl::Time) {
  FakeRows rows(batch.count);
  if (!rows.empty()) std::memcpy(rows.data(), batch.keys.data(), batch.keys.size());
  return AppendRows(batch.session_id, batch.begin_position, rows);
}

absl::Status FakeNode::Truncate(const std::string& id, int64_t position) {
  MutexLock lock(mutex_);
  const auto found = shards_.find(id);
  if (found == shards_.end()) return NoShard(id);
  FakeRows& rows = found->second.rows;
  if (position > static_cast<int64_t>(rows.size())) return absl::OutOfRangeError("beyond");
  rows.resize(static_cast<size_t>(position));
  found->second.described.watermark = position;
  return absl::OkStatus();
}

absl::Status FakeNode::Close(const std::string& id) {
  MutexLock lock(mutex_);
  return shards_.erase(id) > 0 ? absl::OkStatus() : NoShard(id);
}

absl::Status FakePeer::Begin(Fault fault, absl::Time deadline) {
  if (fault == Fault::kUnavailable) return absl::UnavailableError("peer: away");
  if (fault != Fault::kHang) return absl::OkStatus();
  clock_.AdvanceTo(deadline);
  return absl::DeadlineExceededError("peer: no answer");
}

absl::StatusOr<PeerInventory> FakePeer::Find(std::span<const std::string> ids, uint64_t asked,
                                             absl::Time deadline) {
  ++finds;
  on_inventory();
  ATTIC_RETURN_IF_ERROR(Begin(fault(), deadline));
  if (epoch < asked) return absl::UnavailableError("peer: knows no such map yet");
  PeerInventory inventory{.boot_id = boot_id};
  for (const std::string& id : ids) {
    if (const auto shard = node_.Describe(id); shard.ok()) inventory.shards.push_back(*shard);
  }
  return inventory;
}

absl::StatusOr<PeerInventory> FakePeer::Inventory(std::span<const uint32_t> slots, uint64_t asked,
                                                  absl::Time deadline) {
  ++inventories;
  on_inventory();
  ATTIC_RETURN_IF_ERROR(Begin(fault(), deadline));
  if (epoch < asked) return absl::UnavailableError("peer: knows no such map yet");
  PeerInventory inventory{.boot_id = boot_id};
  for (const auto& [id, shard] : node_.All()) {
    if (std::find(slots.begin(), slots.end(), shard.described.slot) != slots.end()) {
      inventory.shards.push_back(shard.described);
    }
  }
  return inventory;
}

absl::StatusOr<RowsDigest> FakePeer::Digest(const std::string& id, absl::Time deadline) {
  on_call(id);
  ATTIC_RETURN_IF_ERROR(Begin(fault(), deadline));
  return node_.Digest(id, deadline);
}

absl::Status FakePeer::ReadRows(const std::string& id, int64_t begin, int64_t end,
                                absl::Duration idle_timeout, const RowsSink& sink) {
  const Fault fault = this->fault();
  on_call(id);
  ATTIC_RETURN_IF_ERROR(Begin(fault, clock_.Now() + idle_timeout));
  const auto shard = node_.Find(id);
  if (shard == nullptr) return NoShard(id);
  if (end > static_cast<int64_t>(shard->rows.size())) return absl::OutOfRangeError("beyond");
  constexpr int64_t kBatch = 3;
  for (int64_t position = begin; position < end; position += kBatch) {
    const int64_t count = std::min(kBatch, end - position);
    FakeRows rows(shard->rows.begin() + position, shard->rows.begin() + position + count);
    if (fault == Fault::kWrongBytes) rows.back() ^= 1;
    if (fault == Fault::kCut && position > begin) return absl::UnavailableError("peer: cut");
    if (fault == Fault::kShort && position > begin) return absl::OkStatus();
    ATTIC_RETURN_IF_ERROR(sink({.session_id = id,
                                .begin_position = position,
                                .count = static_cast<size_t>(count),
                                .keys = std::as_bytes(std::span(rows))}));
    on_call(id);
  }
  return absl::OkStatus();
}

absl::Status FakePeer::Export(const std::string& id, absl::Duration idle_timeout,
                              const BytesSink& sink) {
  const Fault fault = this->fault();
  on_call(id);
  ATTIC_RETURN_IF_ERROR(Begin(fault, clock_.Now() + idle_timeout));
  const auto shard = node_.Find(id);
  if (shard == nullptr) return NoShard(id);
  std::string bytes = Snapshot(shard->rows);
  if (fault == Fault::kWrongBytes) bytes[bytes.size() / 2] ^= 1;
  if (fault == Fault::kShort) bytes.resize(bytes.size() / 2);
  constexpr size_t kChunk = 40;
  for (size_t begin = 0; begin < bytes.size(); begin += kChunk) {
    if (fault == Fault::kCut && begin > 0) return absl::UnavailableError("peer: cut");
    ATTIC_RETURN_IF_ERROR(sink(std::string_view(bytes).substr(begin, kChunk)));
    on_call(id);
  }
  return absl::OkStatus();
}

}  // namespace attic
