// Needles: short statements hidden in a long text, and the questions that ask for them.
#ifndef ATTIC_CLIENT_CLI_DEMO_NEEDLES_H_
#define ATTIC_CLIENT_CLI_DEMO_NEEDLES_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace attic::cli {

// " The code of bakuto is 4711. " is asked for by "\nThe code of bakuto is ".
struct Needle {
  std::string name;
  std::string digits;
  double depth = 0;  // where it was hidden: position / size of the text

  std::string Statement() const { return " The code of " + name + " is " + digits + ". "; }
  std::string Question() const { return "\nThe code of " + name + " is "; }
};

// Distinct pronounceable names of six letters, about a quarter of them one letter away from
// another's, so that a near match is not enough. The same for the same seed. At most
// kNeedlesMax.
std::vector<Needle> MakeNeedles(size_t count, uint64_t seed);
inline constexpr size_t kNeedlesMax = 1000;

// The bytes the statements add.
size_t StatementBytes(const std::vector<Needle>& needles);

// `text` with the statements hidden at even depths, each at the first word boundary after its
// depth; sets every needle's depth in the result.
std::string HideNeedles(std::string_view text, std::vector<Needle>& needles);

}  // namespace attic::cli

#endif  // ATTIC_CLIENT_CLI_DEMO_NEEDLES_H_
