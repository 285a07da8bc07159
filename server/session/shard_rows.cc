#include "server/session/shard_rows.h"

#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "attention/element_type.h"
#include "base/status_macros.h"
#include "server/session/session_store.h"

namespace attic {
namespace {

// Sessions looked at while the catalogue is held.
constexpr size_t kListedTogether = 1024;
constexpr size_t kRowsPieceBytes = 1u << 20;
// As many tokens as one append may have.
constexpr size_t kRowsPieceTokensMax = 16384;

// The rows of one layer as they were at one moment.
class LayerRowsView {
 public:
  static absl::StatusOr<LayerRowsView> Of(const Session& session) {
    const Session::State state = session.state();
    if (state == Session::State::kRecovering || state == Session::State::kFailed) {
      return session.CheckChangeable();
    }
    if (session.layers().empty()) {
      return absl::FailedPreconditionError("session_id: the session has no layers");
    }
    const StoredLayer& layer = *session.layers().front();
    LayerRowsView view(session.fingerprint(), layer.layer(), layer.Snapshot());
    if (session.layers().size() == 1) return view.CheckBlock();
    // A manifest has all layers, and holds nothing.
    for (const auto& other : session.layers()) {
      if (other->watermark() > 0) {
        return absl::FailedPreconditionError("session_id: the session has several layers");
      }
    }
    view.snapshot_.watermark = 0;
    return view;
  }

  uint32_t layer() const { return layer_; }
  int64_t watermark() const { return snapshot_.watermark; }
  size_t key_bytes() const { return snapshot_.heads.size() * key_row_bytes_; }
  size_t value_bytes() const { return snapshot_.heads.size() * value_row_bytes_; }

  // Copies rows [begin, end), below the watermark, of all heads.
  absl::Status Copy(int64_t begin, int64_t end, std::vector<std::byte>& keys,
                    std::vector<std::byte>& values) const {
    const auto count = static_cast<size_t>(end - begin);
    const size_t heads = snapshot_.heads.size();
    keys.resize(count * key_bytes());
    values.resize(count * value_bytes());
    if (heads == 1) {
      return snapshot_.heads.front()->CopyRange({begin, end}, keys.data(), values.data());
    }
    std::vector<std::byte> head_keys(count * key_row_bytes_);
    std::vector<std::byte> head_values(count * value_row_bytes_);
    for (size_t h = 0; h < heads; ++h) {
      ATTIC_RETURN_IF_ERROR(
          snapshot_.heads[h]->CopyRange({begin, end}, head_keys.data(), head_values.data()));
      for (size_t i = 0; i < count; ++i) {
        std::memcpy(keys.data() + (i * heads + h) * key_row_bytes_,
                    head_keys.data() + i * key_row_bytes_, key_row_bytes_);
        std::memcpy(values.data() + (i * heads + h) * value_row_bytes_,
                    head_values.data() + i * value_row_bytes_, value_row_bytes_);
      }
    }
    return absl::OkStatus();
  }

 private:
  LayerRowsView(const Fingerprint& f, uint32_t layer, LayerSnapshot snapshot)
      : layer_(layer),
        key_row_bytes_(f.head_dim * ElementBytes(f.element_type)),
        value_row_bytes_(f.value_dim * ElementBytes(f.element_type)),
        snapshot_(std::move(snapshot)) {}

  absl::StatusOr<LayerRowsView> CheckBlock() {
    const size_t bytes = kDigestBlockTokens * (key_bytes() + value_bytes());
    if (bytes <= kRowsBlockBytesMax) return std::move(*this);
    return absl::ResourceExhaustedError(absl::StrCat("session_id: ", kDigestBlockTokens,
                                                     " rows are ", bytes, " bytes, at most ",
                                                     kRowsBlockBytesMax));
  }

  uint32_t layer_;
  size_t key_row_bytes_;    // of one head
  size_t value_row_bytes_;  // likewise
  LayerSnapshot snapshot_;
};

class LayerRowsSource final : public RowsSource {
 public:
  LayerRowsSource(LayerRowsView view, int64_t begin, int64_t end, std::shared_ptr<void> held)
      : view_(std::move(view)), held_(std::move(held)), position_(begin), end_(end) {
    const size_t fitting = kRowsPieceBytes / (view_.key_bytes() + view_.value_bytes());
    piece_tokens_ = static_cast<int64_t>(std::clamp<size_t>(fitting, 1, kRowsPieceTokensMax));
  }

  absl::StatusOr<bool> Next(ShardRows& rows) override {
    if (position_ >= end_) return false;
    if (position_ >= block_end_) ATTIC_RETURN_IF_ERROR(ReadBlock());
    const int64_t end = std::min(block_end_, position_ + piece_tokens_);
    rows.layer = view_.layer();
    rows.begin_position = position_;
    rows.count = static_cast<size_t>(end - position_);
    Slice(keys_, view_.key_bytes(), rows.count, rows.keys);
    Slice(values_, view_.value_bytes(), rows.count, rows.values);
    position_ = end;
    return true;
  }

 private:
  // A block at a time, which is a segment as a rule: what is on disk is read once.
  absl::Status ReadBlock() {
    block_begin_ = position_;
    const int64_t block = position_ / kDigestBlockTokens;
    block_end_ = std::min(end_, (block + 1) * kDigestBlockTokens);
    return view_.Copy(block_begin_, block_end_, keys_, values_);
  }

  void Slice(const std::vector<std::byte>& block, size_t row_bytes, size_t count,
             std::vector<std::byte>& slice) const {
    const auto begin =
        block.begin() + (position_ - block_begin_) * static_cast<std::ptrdiff_t>(row_bytes);
    slice.assign(begin, begin + static_cast<std::ptrdiff_t>(count * row_bytes));
  }

  const LayerRowsView view_;
  const std::shared_ptr<void> held_;
  int64_t piece_tokens_ = 1;
  int64_t position_;
  const int64_t end_;
  int64_t block_begin_ = 0, block_end_ = 0;
  std::vector<std::byte> keys_, values_;  // of the block
};

}  // namespace

std::vector<PlacedSession> ListPlaced(const Catalogue& catalogue,
                                      const std::string& after_session_id, size_t page_size,
                                      std::span<const uint32_t> slots) {
  std::vector<PlacedSession> listed;
  std::string after = after_session_id;
  while (listed.size() < page_size) {
    const auto sessions = catalogue.After(after, kListedTogether);
    for (const auto& session : sessions) {
      const SessionAttributes& attributes = session->attributes();
      if (!attributes.placement.has_value()) continue;
      const uint32_t slot = attributes.placement->slot;
      if (!slots.empty() && !std::binary_search(slots.begin(), slots.end(), slot)) continue;
      listed.push_back({.session_id = session->id(),
                        .slot = slot,
                        .replicas = attributes.placement->replication.replicas,
                        .watermark = session->watermark(),
                        .durable = attributes.durability == Durability::kDurable});
      if (listed.size() == page_size) break;
    }
    if (sessions.size() < kListedTogether) break;
    after = sessions.back()->id();
  }
  return listed;
}

absl::StatusOr<PlacedSession> FindPlaced(SessionStore& store, const std::string& session_id) {
  ATTIC_ASSIGN_OR_RETURN(const SessionDescription session, store.DescribeSession(session_id));
  if (!session.placement.has_value()) {
    return absl::NotFoundError(absl::StrCat("session_id: ", session_id, " has no placement"));
  }
  return PlacedSession{.session_id = session_id,
                       .slot = session.placement->slot,
                       .replicas = session.placement->replication.replicas,
                       .watermark = session.watermark,
                       .durable = session.durability == Durability::kDurable};
}

absl::StatusOr<RowsDigest> DigestRows(const Session& session, absl::Time deadline) {
  BlockDigests::Known known = session.block_digests().Get();
  ATTIC_ASSIGN_OR_RETURN(const LayerRowsView view, LayerRowsView::Of(session));
  // Something was cut off meanwhile: the view may hold other rows than those that are known.
  if (session.block_digests().Get().history != known.history) known.blocks.clear();
  RowsDigest digest{.watermark = view.watermark(), .blocks = std::move(known.blocks)};
  const auto whole = static_cast<size_t>(digest.watermark / kDigestBlockTokens);
  if (digest.blocks.size() > whole) digest.blocks.resize(whole);
  std::vector<std::byte> keys, values;
  std::unique_ptr<XXH3_state_t, XXH_errorcode (*)(XXH3_state_t*)> state(XXH3_createState(),
                                                                        XXH3_freeState);
  if (state == nullptr) return absl::ResourceExhaustedError("memory: none for a digest");
  const auto first = static_cast<int64_t>(digest.blocks.size());
  if (absl::Now() >= deadline) return absl::DeadlineExceededError("digest: deadline passed");
  for (int64_t begin = first * kDigestBlockTokens; begin < digest.watermark;
       begin += kDigestBlockTokens) {
    if (absl::Now() >= deadline) {
      session.block_digests().Remember(std::move(digest.blocks), known.history);
      return absl::DeadlineExceededError("digest: deadline passed");
    }
    const int64_t end = std::min(digest.watermark, begin + kDigestBlockTokens);
    ATTIC_RETURN_IF_ERROR(view.Copy(begin, end, keys, values));
    XXH3_64bits_reset(state.get());
    XXH3_64bits_update(state.get(), keys.data(), keys.size());
    XXH3_64bits_update(state.get(), values.data(), values.size());
    const uint64_t hash = XXH3_64bits_digest(state.get());
    if (end - begin == kDigestBlockTokens) {
      digest.blocks.push_back(hash);
    } else {
      digest.rest = hash;
    }
  }
  session.block_digests().Remember(digest.blocks, known.history);
  return digest;
}

absl::StatusOr<std::unique_ptr<RowsSource>> ReadRows(const std::shared_ptr<Session>& session,
                                                     int64_t begin, int64_t end,
                                                     std::shared_ptr<void> held) {
  if (begin < 0) return absl::InvalidArgumentError("begin: must not be negative");
  if (end < begin) return absl::InvalidArgumentError("end: is before begin");
  ATTIC_ASSIGN_OR_RETURN(LayerRowsView view, LayerRowsView::Of(*session));
  if (end > view.watermark()) {
    return absl::OutOfRangeError(
        absl::StrCat("end: ", end, " is beyond the watermark ", view.watermark()));
  }
  return std::make_unique<LayerRowsSource>(std::move(view), begin, end, std::move(held));
}

}  // namespace attic
