// What the files that sessions are exported to, of one store and of a cluster, have in common: a
// header, and frames with a header each, whose checksums cover all of their bytes. Which fields
// there are, and what they mean, is in server/storage/SNAPSHOT.md and
// client/cpp/cluster/SNAPSHOT.md. Pure functions.
#ifndef ATTIC_API_SNAPSHOT_FRAMES_H_
#define ATTIC_API_SNAPSHOT_FRAMES_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace attic {

// The first bytes of a file, which say what kind of file it is. Of one store:
inline constexpr std::string_view kStoreSnapshotMagic = "ATTICSNP";
// Of a cluster:
inline constexpr std::string_view kClusterSnapshotMagic = "ATTICCLS";

// Of the file, and of a frame. The last of them are the checksum.
inline constexpr size_t kSnapshotHeaderBytes = 64;

// The magic, the version, the identity of the file, zeros, and the XXH3-64 of these bytes.
std::string EncodeFileHeader(std::string_view magic, uint32_t version, uint64_t identity);
// The identity. `bytes` are kSnapshotHeaderBytes; errors begin with `what`.
//   DATA_LOSS: damaged, or no file of this magic; FAILED_PRECONDITION: of another version.
absl::StatusOr<uint64_t> DecodeFileHeader(std::string_view bytes, std::string_view magic,
                                          uint32_t version, std::string_view what);

// `fields`, which leave room for a checksum in the header, zeros, the XXH3-64 of header and payload
// with the file's identity as seed, and the payload.
std::string EncodeFrame(uint64_t identity, std::string fields, std::string_view payload);
// Whether the checksum in the header, of kSnapshotHeaderBytes, is that of both.
bool FrameIsWhole(uint64_t identity, std::string_view header, std::string_view payload);
// Whether nothing but zeros is between the fields, of so many bytes, and the checksum.
bool EndsInZeros(std::string_view header, size_t fields_bytes);

}  // namespace attic

#endif  // ATTIC_API_SNAPSHOT_FRAMES_H_
