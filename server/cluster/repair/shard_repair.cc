#include "server/cluster/repair/shard_repair.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace attic {
namespace {

constexpr size_t kFloorCutsMax = 3;

// The first whole block that differs among those both hold; their number when none does.
size_t FirstDifference(const RowsDigest& a, const RowsDigest& b) {
  const size_t common = std::min(a.blocks.size(), b.blocks.size());
  const auto end = a.blocks.begin() + static_cast<ptrdiff_t>(common);
  return static_cast<size_t>(std::mismatch(a.blocks.begin(), end, b.blocks.begin()).first -
                             a.blocks.begin());
}

// Digests come from other machines.
absl::Status CheckDigest(const RowsDigest& digest, int64_t block_tokens) {
  if (digest.watermark < 0 ||
      digest.blocks.size() != static_cast<uint64_t>(digest.watermark / block_tokens)) {
    return absl::DataLossError("repair: a digest's blocks do not fit its watermark");
  }
  return absl::OkStatus();
}

}  // namespace

struct ShardRepair::State {
  const ShardFill& fill;
  ShardChanges::Watch watch;
  ShardOutcome outcome;
  bool closed = false;  // found so
  // Rows from here on were brought by this repair: they may be truncated again when they are not
  // what the source said.
  int64_t floor = std::numeric_limits<int64_t>::max();
  size_t floor_cuts = 0;
  int64_t sources_watermark = 0;  // largest, of the last comparison
  int64_t own_watermark = 0;
};

ShardRepair::ShardRepair(ShardHolder& holder, ShardChanges& changes, Throttle& throttle,
                         PullCounts& counts, ShardRepairOptions options)
    : holder_(holder),
      changes_(changes),
      throttle_(throttle),
      counts_(counts),
      options_(std::move(options)) {}

absl::Status ShardRepair::ImportFrom(State& state, ShardPeer& peer) {
  ATTIC_ASSIGN_OR_RETURN(const auto import, holder_.Import(state.fill.shard));
  absl::Status status = peer.Export(state.fill.shard.session_id, options_.idle_timeout,
                                    [&](std::string_view bytes) -> absl::Status {
                                      ATTIC_RETURN_IF_ERROR(state.watch.Check());
                                      ATTIC_RETURN_IF_ERROR(throttle_.Take(bytes.size()));
                                      counts_.bytes += bytes.size();
                                      return import->Write(bytes);
                                    });
  if (status.ok()) status = state.watch.Apply([&] { return import->Finish(); });
  if (!absl::IsFailedPrecondition(status)) return status;
  const absl::Status opened = state.watch.Apply([&] { return import->OpenEmpty(); });
  return absl::IsFailedPrecondition(opened) ? status : opened;
}

absl::Status ShardRepair::Import(State& state) {
  absl::Status status = absl::NotFoundError("repair: no source holds the shard any more");
  for (const ShardSource& source : state.fill.sources) {
    const absl::Status imported = ImportFrom(state, *source.peer);
    if (imported.ok()) {
      state.outcome.imported = true;
      state.outcome.pulled = true;
      state.floor = 0;
      return imported;
    }
    // Opened meanwhile, or closed: the others say which.
    if (absl::IsAlreadyExists(imported) || absl::IsAborted(imported)) return imported;
    if (!absl::IsNotFound(imported)) status = imported;
  }
  return status;
}

absl::Status ShardRepair::Truncate(State& state, int64_t position) {
  const std::string& id = state.fill.shard.session_id;
  const absl::Status status = state.watch.Apply([&] { return holder_.Truncate(id, position); });
  // Somebody did so already.
  return absl::IsOutOfRange(status) ? absl::OkStatus() : status;
}

// The node's rows from `position` on, the begin of a block or of what this repair brought, are not
// the source's.
absl::StatusOr<ShardRepair::Round> ShardRepair::Replace(State& state, const ShardSource& source,
                                                        int64_t position, const RowsDigest& own,
                                                        const RowsDigest& theirs) {
  const ShardFill& fill = state.fill;
  const bool source_first = source.rank < fill.own_rank;
  bool replace = false;
  if (fill.away) {
    // Where nobody is live, those of higher rank follow this node.
    if (!source.live && !source_first) return Round::kEqual;
    replace = true;
  } else if (source_first && fill.settle_conflicts) {
    replace = theirs.watermark >= own.watermark;
  }
  if (!replace && state.floor < std::min(own.watermark, position + options_.block_tokens)) {
    // What came is not what the source holds, or what was here before is not: once more tells.
    replace = ++state.floor_cuts < kFloorCutsMax;
    position = std::max(position, state.floor);
    if (!replace) ATTIC_RETURN_IF_ERROR(Truncate(state, position));
  }
  if (!replace) {
    state.outcome.conflict = true;
    return absl::DataLossError(absl::StrCat("repair: ", fill.shard.session_id,
                                            " differs between live replicas from position ",
                                            position));
  }
  ATTIC_RETURN_IF_ERROR(Truncate(state, position));
  return Round::kChanged;
}

absl::StatusOr<ShardRepair::Round> ShardRepair::Pull(State& state, const ShardSource& source,
                                                     const RowsDigest& own,
                                                     const RowsDigest& theirs) {
  const std::string& id = state.fill.shard.session_id;
  // From the last block that both hold in whole on, though some is here: appending compares.
  const size_t blocks = std::min(own.blocks.size(), theirs.blocks.size());
  const int64_t whole = static_cast<int64_t>(blocks) * options_.block_tokens;
  const bool longer = theirs.watermark > own.watermark;
  if (longer) state.floor = std::min(state.floor, own.watermark);
  int64_t begin = whole;
  while (begin < theirs.watermark) {
    const int64_t end = std::min(begin + options_.block_tokens, theirs.watermark);
    const absl::Status read = source.peer->ReadRows(
        id, begin, end, options_.idle_timeout, [&](const AppendBatch& batch) -> absl::Status {
          const uint64_t bytes = batch.keys.size() + batch.values.size();
          ATTIC_RETURN_IF_ERROR(throttle_.Take(bytes));
          counts_.bytes += bytes;
          return state.watch.Apply([&] { return holder_.Append(batch, Deadline()); });
        });
    if (absl::IsAlreadyExists(read)) return Replace(state, source, whole, own, theirs);
    // A truncation, there or here.
    if (absl::IsOutOfRange(read)) return Round::kChanged;
    if (absl::IsNotFound(read)) return Round::kChanged;
    ATTIC_RETURN_IF_ERROR(read);
    state.outcome.pulled = state.outcome.pulled || longer;
    begin = end;
  }
  return longer ? Round::kChanged : Round::kEqual;
}

absl::StatusOr<ShardRepair::Round> ShardRepair::Align(State& state, const ShardSource& source) {
  const std::string& id = state.fill.shard.session_id;
  // The source's first: appends that come meanwhile make this node's longer, not shorter.
  auto theirs = source.peer->Digest(id, Deadline());
  if (absl::IsNotFound(theirs.status())) return Round::kSkipped;
  ATTIC_RETURN_IF_ERROR(theirs.status());
  ATTIC_RETURN_IF_ERROR(CheckDigest(*theirs, options_.block_tokens));
  const auto own = holder_.Digest(id, Deadline());
  if (absl::IsNotFound(own.status())) state.closed = true;
  ATTIC_RETURN_IF_ERROR(own.status());
  state.own_watermark = own->watermark;
  state.sources_watermark = std::max(state.sources_watermark, theirs->watermark);

  const size_t difference = FirstDifference(*own, *theirs);
  const int64_t position = static_cast<int64_t>(difference) * options_.block_tokens;
  if (difference < std::min(own->blocks.size(), theirs->blocks.size())) {
    return Replace(state, source, position, *own, *theirs);
  }
  if (own->watermark < theirs->watermark) return Pull(state, source, *own, *theirs);
  if (own->watermark == theirs->watermark && own->rest != theirs->rest) {
    return Replace(state, source, position, *own, *theirs);
  }
  // Of a longer shard the checksum says nothing about the rows that follow the last common block.
  if (own->watermark > theirs->watermark && theirs->rest != 0 && state.fill.away) {
    return Pull(state, source, *own, *theirs);
  }
  return Round::kEqual;
}

absl::StatusOr<ShardRepair::Round> ShardRepair::Compare(State& state) {
  state.sources_watermark = 0;
  size_t compared = 0;
  for (const ShardSource& source : state.fill.sources) {
    ATTIC_RETURN_IF_ERROR(state.watch.Check());
    ATTIC_ASSIGN_OR_RETURN(const Round round, Align(state, source));
    if (round == Round::kChanged) return round;
    if (round == Round::kEqual) ++compared;
  }
  return compared > 0 ? Round::kEqual : Round::kSkipped;
}

absl::StatusOr<ShardRepair::Round> ShardRepair::CutSurplus(State& state) {
  const ShardFill& fill = state.fill;
  if (!fill.away || !fill.sources[0].live) return Round::kEqual;
  if (std::min(state.own_watermark, fill.surplus_end) <= state.sources_watermark) {
    return Round::kEqual;
  }
  state.outcome.surplus = !fill.cut_surplus;
  if (!fill.cut_surplus) return Round::kEqual;
  ATTIC_RETURN_IF_ERROR(Truncate(state, state.sources_watermark));
  return Round::kChanged;
}

ShardOutcome ShardRepair::Fill(const ShardFill& fill) {
  State state{.fill = fill, .watch = {changes_, fill.shard.session_id}};
  const auto run = [&]() -> absl::Status {
    ATTIC_RETURN_IF_ERROR(state.watch.Check());
    if (!fill.held) {
      const absl::Status imported = Import(state);
      // Closed everywhere: there is nothing to hold.
      if (absl::IsNotFound(imported)) return absl::OkStatus();
      if (!absl::IsAlreadyExists(imported)) ATTIC_RETURN_IF_ERROR(imported);
    }
    for (size_t i = 0; i < options_.rounds_max; ++i) {
      auto round = Compare(state);
      if (state.closed) return absl::OkStatus();
      if (round.ok() && *round == Round::kEqual) round = CutSurplus(state);
      ATTIC_RETURN_IF_ERROR(round.status());
      if (*round == Round::kEqual) return absl::OkStatus();
      if (*round == Round::kChanged) continue;
      // Closed everywhere while it was imported; a shard that was here is decided on elsewhere.
      if (!state.outcome.imported) break;
      return state.watch.Apply([&] { return holder_.Close(fill.shard.session_id); });
    }
    return absl::AbortedError(absl::StrCat("repair: ", fill.shard.session_id, " keeps changing"));
  };
  state.outcome.status = run();
  if (state.outcome.status.ok() && state.outcome.pulled) ++counts_.shards;
  return state.outcome;
}

absl::Status ShardRepair::CloseHere(ShardChanges::Watch& watch, const std::string& session_id) {
  const absl::Status closed = watch.Apply([&] { return holder_.Close(session_id); });
  if (absl::IsNotFound(closed)) return absl::OkStatus();
  if (closed.ok()) ++counts_.dropped;
  return closed;
}

absl::Status ShardRepair::Close(const HeldShard& shard,
                                const std::vector<std::shared_ptr<ShardPeer>>& owners) {
  ShardChanges::Watch watch(changes_, shard.session_id);
  for (const auto& owner : owners) {
    const absl::Status theirs = owner->Digest(shard.session_id, Deadline()).status();
    if (theirs.ok()) {
      return absl::FailedPreconditionError(
          absl::StrCat("repair: ", shard.session_id, " is held by a live replica"));
    }
    if (!absl::IsNotFound(theirs)) return theirs;
  }
  return CloseHere(watch, shard.session_id);
}

absl::Status ShardRepair::Drop(const HeldShard& shard,
                               const std::vector<std::shared_ptr<ShardPeer>>& owners) {
  ShardChanges::Watch watch(changes_, shard.session_id);
  const auto own = holder_.Digest(shard.session_id, Deadline());
  if (absl::IsNotFound(own.status())) return absl::OkStatus();
  ATTIC_RETURN_IF_ERROR(own.status());
  for (const auto& owner : owners) {
    ATTIC_ASSIGN_OR_RETURN(const RowsDigest theirs, owner->Digest(shard.session_id, Deadline()));
    ATTIC_RETURN_IF_ERROR(CheckDigest(theirs, options_.block_tokens));
    const bool same = FirstDifference(*own, theirs) == own->blocks.size() &&
                      theirs.watermark >= own->watermark &&
                      (theirs.watermark > own->watermark || theirs.rest == own->rest);
    if (!same) {
      return absl::FailedPreconditionError(
          absl::StrCat("repair: ", shard.session_id, " is not held as well by its owners"));
    }
  }
  return CloseHere(watch, shard.session_id);
}

}  // namespace attic
