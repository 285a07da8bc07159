// Takes the rows of one head out of arrays that interleave the heads of a layer.
#ifndef ATTIC_SERVER_SESSION_HEAD_ROWS_H_
#define ATTIC_SERVER_SESSION_HEAD_ROWS_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace attic {

// interleaved is (tokens, heads, row_bytes). Returns (tokens, row_bytes) of `head`: `interleaved`
// itself when there is one head, otherwise a copy in `buffer` (replaced).
std::span<const std::byte> HeadRows(std::span<const std::byte> interleaved, size_t heads,
                                    size_t head, size_t row_bytes, std::vector<std::byte>& buffer);

// query_sample is (n, kv_heads * group, head_dim). Returns (n * group, head_dim): the queries of
// the group of `kv_head`, in `buffer` (replaced).
std::span<const float> GroupQueries(std::span<const float> query_sample, size_t kv_heads,
                                    size_t kv_head, size_t group, size_t head_dim,
                                    std::vector<float>& buffer);

}  // namespace attic

#endif  // ATTIC_SERVER_SESSION_HEAD_ROWS_H_
