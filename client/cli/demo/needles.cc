#include "client/cli/demo/needles.h"

#include <algorithm>
#include <random>
#include <set>

#include "base/check.h"

namespace attic::cli {
namespace {

constexpr std::string_view kConsonants = "bcdfghjklmnprstvwz";
constexpr std::string_view kVowels = "aeiou";
constexpr int kSyllables = 3;
constexpr int kDigits = 4;
constexpr uint64_t kNearNamesOneIn = 4;
constexpr size_t kBoundarySearchBytes = 80;

// std::uniform_int_distribution differs between libraries; the same seed should mean the same
// needles everywhere.
size_t Draw(std::mt19937_64& random, size_t count) { return random() % count; }

char Letter(std::mt19937_64& random, std::string_view letters) {
  return letters[Draw(random, letters.size())];
}

std::string RandomName(std::mt19937_64& random) {
  std::string name;
  for (int i = 0; i < kSyllables; ++i) {
    name += Letter(random, kConsonants);
    name += Letter(random, kVowels);
  }
  return name;
}

std::string NearName(std::mt19937_64& random, std::string name) {
  char& letter = name[Draw(random, name.size())];
  const std::string_view letters =
      kVowels.find(letter) == std::string_view::npos ? kConsonants : kVowels;
  letter = Letter(random, letters);
  return name;
}

}  // namespace

std::vector<Needle> MakeNeedles(size_t count, uint64_t seed) {
  ATTIC_CHECK(count <= kNeedlesMax);
  std::mt19937_64 random(seed);
  std::vector<Needle> needles;
  std::set<std::string> taken;
  while (needles.size() < count) {
    const bool near = !needles.empty() && Draw(random, kNearNamesOneIn) == 0;
    Needle needle;
    needle.name =
        near ? NearName(random, needles[Draw(random, needles.size())].name) : RandomName(random);
    if (!taken.insert(needle.name).second) continue;
    for (int i = 0; i < kDigits; ++i) needle.digits += Letter(random, "0123456789");
    needles.push_back(std::move(needle));
  }
  // Near names are made from earlier ones; without this they would all lie in the later part.
  for (size_t i = needles.size(); i > 1; --i) std::swap(needles[i - 1], needles[Draw(random, i)]);
  return needles;
}

size_t StatementBytes(const std::vector<Needle>& needles) {
  size_t bytes = 0;
  for (const Needle& needle : needles) bytes += needle.Statement().size();
  return bytes;
}

std::string HideNeedles(std::string_view text, std::vector<Needle>& needles) {
  std::string hidden;
  const size_t bytes = text.size() + StatementBytes(needles);
  hidden.reserve(bytes);
  size_t copied = 0;
  for (size_t i = 0; i < needles.size(); ++i) {
    const double depth = (static_cast<double>(i) + 0.5) / static_cast<double>(needles.size());
    size_t cut = std::max(copied, static_cast<size_t>(depth * static_cast<double>(text.size())));
    const size_t boundary = text.substr(cut, kBoundarySearchBytes).find_first_of(" \n");
    if (boundary != std::string_view::npos) cut += boundary;
    hidden.append(text.substr(copied, cut - copied));
    copied = cut;
    needles[i].depth = static_cast<double>(hidden.size()) / static_cast<double>(bytes);
    hidden += needles[i].Statement();
  }
  hidden.append(text.substr(copied));
  return hidden;
}

}  // namespace attic::cli
