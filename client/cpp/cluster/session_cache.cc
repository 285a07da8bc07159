#include "client/cpp/cluster/session_cache.h"

#include <algorithm>

namespace attic {

SessionCache::Entry* SessionCache::FindEntry(const std::string& session_id) {
  const auto found = entries_.find(session_id);
  return found == entries_.end() ? nullptr : &found->second;
}

const SessionCache::Entry* SessionCache::FindEntry(const std::string& session_id) const {
  const auto found = entries_.find(session_id);
  return found == entries_.end() ? nullptr : &found->second;
}

std::shared_ptr<const SessionInfo> SessionCache::Find(const std::string& session_id,
                                                      absl::Time now) {
  MutexLock lock(mutex_);
  Entry* const entry = FindEntry(session_id);
  if (entry == nullptr) return nullptr;
  entry->used = now;
  order_.splice(order_.end(), order_, entry->order);
  return entry->info;
}

void SessionCache::Put(std::shared_ptr<const SessionInfo> info, absl::Time now) {
  const std::string id = info->session_id;
  MutexLock lock(mutex_);
  Entry* entry = FindEntry(id);
  if (entry == nullptr) {
    if (entries_.size() >= sessions_max_ && !order_.empty()) {
      entries_.erase(order_.front());
      order_.pop_front();
    }
    entry = &entries_[id];
    entry->order = order_.insert(order_.end(), id);
    entry->renewed = now;
    entry->generation = ++generations_;
  } else if (SessionInfo same = *info; same.pinned = entry->info->pinned, same != *entry->info) {
    // Another session of the same id.
    entry->watermarks.clear();
    entry->blocks.clear();
    entry->generation = ++generations_;
  }
  entry->info = std::move(info);
  entry->used = now;
}

void SessionCache::Drop(const std::string& session_id) {
  MutexLock lock(mutex_);
  Entry* const entry = FindEntry(session_id);
  if (entry == nullptr) return;
  order_.erase(entry->order);
  entries_.erase(session_id);
}

void SessionCache::NoteAppended(const std::string& session_id, uint32_t layer, int64_t watermark) {
  MutexLock lock(mutex_);
  Entry* const entry = FindEntry(session_id);
  if (entry == nullptr) return;
  KnownWatermark& known = entry->watermarks[layer];
  known.watermark = std::max(known.watermark, watermark);
  known.appended_here = true;
}

void SessionCache::NoteSeen(const std::string& session_id, uint32_t layer, int64_t watermark,
                            absl::Time now) {
  MutexLock lock(mutex_);
  Entry* const entry = FindEntry(session_id);
  if (entry == nullptr) return;
  // It may be less than what was known: somebody else truncated.
  KnownWatermark& known = entry->watermarks[layer];
  known.watermark = watermark;
  known.seen = now;
}

void SessionCache::NoteTruncated(const std::string& session_id, int64_t position) {
  MutexLock lock(mutex_);
  Entry* const entry = FindEntry(session_id);
  if (entry == nullptr) return;
  entry->generation = ++generations_;
  for (auto& [layer, known] : entry->watermarks) {
    known.watermark = std::min(known.watermark, position);
  }
  const int64_t shard_tokens = entry->info->replication.shard_tokens;
  if (shard_tokens == 0) return;
  const int64_t left = std::max<int64_t>(1, (position + shard_tokens - 1) / shard_tokens);
  for (auto& [layer, blocks] : entry->blocks) {
    blocks = static_cast<uint32_t>(std::min<int64_t>(blocks, left));
  }
}

std::optional<KnownWatermark> SessionCache::Watermark(const std::string& session_id,
                                                      uint32_t layer) const {
  MutexLock lock(mutex_);
  const Entry* const entry = FindEntry(session_id);
  if (entry == nullptr) return std::nullopt;
  const auto known = entry->watermarks.find(layer);
  if (known == entry->watermarks.end()) return std::nullopt;
  return known->second;
}

uint64_t SessionCache::Generation(const std::string& session_id) const {
  MutexLock lock(mutex_);
  const Entry* const entry = FindEntry(session_id);
  return entry == nullptr ? 0 : entry->generation;
}

uint32_t SessionCache::BlocksOpened(const std::string& session_id, uint32_t layer) const {
  MutexLock lock(mutex_);
  const Entry* const entry = FindEntry(session_id);
  if (entry == nullptr) return 1;
  const auto blocks = entry->blocks.find(layer);
  return blocks == entry->blocks.end() ? 1 : std::max<uint32_t>(1, blocks->second);
}

void SessionCache::NoteBlocksOpened(const std::string& session_id, uint32_t layer, uint32_t count) {
  MutexLock lock(mutex_);
  Entry* const entry = FindEntry(session_id);
  if (entry == nullptr) return;
  uint32_t& blocks = entry->blocks[layer];
  blocks = std::max(blocks, count);
}

std::vector<std::shared_ptr<const SessionInfo>> SessionCache::TakeDueLeases(absl::Time now) {
  std::vector<std::shared_ptr<const SessionInfo>> due;
  MutexLock lock(mutex_);
  for (auto& [id, entry] : entries_) {
    if (entry.info->ttl_seconds == 0) continue;
    const absl::Duration ttl = absl::Seconds(entry.info->ttl_seconds);
    if (now - entry.used > ttl || now - entry.renewed < ttl / 3) continue;
    entry.renewed = now;
    due.push_back(entry.info);
  }
  return due;
}

}  // namespace attic
