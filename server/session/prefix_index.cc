#include "server/session/prefix_index.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace attic {
namespace {

// Chains with an equal hash are equal before it too, so the first difference can be bisected.
size_t CommonBlocks(std::span<const PrefixHash> a, std::span<const PrefixHash> b) {
  size_t same = 0, differ = std::min(a.size(), b.size()) + 1;  // of blocks; 0 are always the same
  while (differ - same > 1) {
    const size_t middle = same + (differ - same) / 2;
    (a[middle - 1] == b[middle - 1] ? same : differ) = middle;
  }
  return same;
}

// `tie` tells equal chains apart.
bool Before(std::span<const PrefixHash> a, std::span<const PrefixHash> b, bool tie) {
  const size_t common = CommonBlocks(a, b);
  if (common == a.size() || common == b.size()) {
    return a.size() == b.size() ? tie : a.size() < b.size();
  }
  return a[common] < b[common];
}

// Texts with their lengths, so that no two scopes look the same.
std::string Scope(const std::string& tenant, const Fingerprint& f, std::vector<uint32_t> layers,
                  const std::optional<Placement>& placement) {
  std::string scope;
  for (const std::string* text : {&tenant, &f.model_id, &f.revision, &f.position_encoding}) {
    absl::StrAppend(&scope, text->size(), ":", *text);
  }
  absl::StrAppend(&scope, f.layers, ",", f.q_heads, ",", f.kv_heads, ",", f.head_dim, ",");
  absl::StrAppend(&scope, f.value_dim, ",", static_cast<int>(f.element_type), ",",
                  std::bit_cast<uint32_t>(f.logit_scale));
  std::sort(layers.begin(), layers.end());
  for (const uint32_t layer : layers) absl::StrAppend(&scope, ",", layer);
  // Shards of equal tokens are equal where they are of the same head.
  if (placement.has_value()) {
    absl::StrAppend(&scope, "#", placement->kv_head, ".", placement->block, ".",
                    placement->replication.shard_tokens);
  }
  return scope;
}

}  // namespace

bool PrefixIndex::InOrder::operator()(const Entry* a, const Entry* b) const {
  return Before(a->hashes, b->hashes, a < b);
}

bool PrefixIndex::InOrder::operator()(const Entry* a, std::span<const PrefixHash> b) const {
  return Before(a->hashes, b, false);
}

PrefixIndex::Entry* PrefixIndex::FindEntry(const Session& session) {
  const auto found = entries_.find(&session);
  return found == entries_.end() ? nullptr : &found->second;
}

const PrefixIndex::Entry* PrefixIndex::FindEntry(const Session& session) const {
  const auto found = entries_.find(&session);
  return found == entries_.end() ? nullptr : &found->second;
}

void PrefixIndex::Detach(const Entry& entry) {
  if (entry.hashes.empty()) return;
  const auto chains = scopes_.find(entry.scope);
  chains->second.erase(&entry);
  if (chains->second.empty()) scopes_.erase(chains);
}

void PrefixIndex::Attach(const Entry& entry) {
  if (!entry.hashes.empty()) scopes_[entry.scope].insert(&entry);
}

void PrefixIndex::Add(const std::shared_ptr<Session>& session, std::vector<PrefixHash> hashes) {
  std::vector<uint32_t> layers;
  for (const auto& layer : session->layers()) layers.push_back(layer->layer());
  std::string scope = Scope(session->attributes().tenant, session->fingerprint(), layers,
                            session->attributes().placement);
  MutexLock lock(mutex_);
  ATTIC_CHECK(entries_.count(session.get()) == 0);
  Entry& entry = entries_[session.get()];
  entry.session = session;
  entry.scope = std::move(scope);
  entry.hashes = std::move(hashes);
  Attach(entry);
}

absl::Status PrefixIndex::Extend(const Session& session, size_t first_block,
                                 std::span<const PrefixHash> hashes) {
  MutexLock lock(mutex_);
  Entry* const entry = FindEntry(session);
  if (entry == nullptr) {
    return absl::NotFoundError(absl::StrCat("session_id: no session ", session.id()));
  }
  const size_t held = entry->hashes.size();
  if (first_block > held) {
    return absl::OutOfRangeError(
        absl::StrCat("first_block: ", first_block, " is beyond the ", held, " blocks registered"));
  }
  const size_t again = std::min(held - first_block, hashes.size());
  if (!std::equal(hashes.begin(), hashes.begin() + again, entry->hashes.begin() + first_block)) {
    return absl::AlreadyExistsError("prefix_hashes: differ from those registered");
  }
  if (again == hashes.size()) return absl::OkStatus();
  Detach(*entry);
  entry->hashes.insert(entry->hashes.end(), hashes.begin() + again, hashes.end());
  Attach(*entry);
  return absl::OkStatus();
}

void PrefixIndex::Truncate(const Session& session, int64_t position) {
  MutexLock lock(mutex_);
  Entry* const entry = FindEntry(session);
  if (entry == nullptr) return;
  ++entry->truncations;
  const size_t blocks = static_cast<size_t>(position) / kPrefixBlockTokens;
  if (entry->hashes.size() <= blocks) return;
  Detach(*entry);
  entry->hashes.resize(blocks);
  Attach(*entry);
}

void PrefixIndex::Remove(const Session& session) {
  MutexLock lock(mutex_);
  const auto found = entries_.find(&session);
  if (found == entries_.end()) return;
  Detach(found->second);
  entries_.erase(found);
}

RegisteredPrefix PrefixIndex::Registered(const Session& session) const {
  MutexLock lock(mutex_);
  const Entry* const entry = FindEntry(session);
  if (entry == nullptr) return {};
  return {entry->hashes, entry->truncations};
}

std::vector<PrefixMatch> PrefixIndex::Find(const OpenSessionRequest& request) const {
  std::vector<PrefixMatch> matches;
  const std::span<const PrefixHash> hashes = request.prefix_hashes;
  const std::string scope =
      Scope(request.tenant, request.fingerprint, request.stored_layers, request.placement);
  MutexLock lock(mutex_);
  const auto chains = scopes_.find(scope);
  if (chains == scopes_.end()) return matches;
  const Chains& sorted = chains->second;
  const auto common = [&](Chains::const_iterator it) {
    return CommonBlocks((*it)->hashes, hashes);
  };
  // Away from where the chain itself would stand, common beginnings only get shorter.
  auto after = sorted.lower_bound(hashes);
  auto before = after;
  for (;;) {
    const size_t right = after == sorted.end() ? 0 : common(after);
    const size_t left = before == sorted.begin() ? 0 : common(std::prev(before));
    if (left == 0 && right == 0) return matches;
    const Entry* const entry = right >= left ? *after++ : *--before;
    // Null when nobody else holds the session any more.
    if (std::shared_ptr<Session> session = entry->session.lock()) {
      matches.push_back({std::move(session), std::max(left, right), entry->truncations});
    }
  }
}

bool PrefixIndex::StillHolds(const Session& session, uint64_t truncations) const {
  MutexLock lock(mutex_);
  const Entry* const entry = FindEntry(session);
  return entry != nullptr && entry->truncations == truncations;
}

}  // namespace attic
