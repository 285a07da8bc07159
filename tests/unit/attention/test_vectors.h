// Random vectors and Highway targets for the tests of attention/.
#ifndef ATTIC_TESTS_UNIT_ATTENTION_TEST_VECTORS_H_
#define ATTIC_TESTS_UNIT_ATTENTION_TEST_VECTORS_H_

#include <cstddef>
#include <random>
#include <vector>

#include "attention/element_type.h"
#include "hwy/targets.h"

namespace attic {

inline constexpr ElementType kElementTypes[] = {ElementType::kFloat32, ElementType::kBFloat16,
                                                ElementType::kFloat16};

inline std::vector<float> RandomFloats(std::mt19937& random, size_t count, float scale = 1.0f) {
  std::normal_distribution<float> normal(0.0f, scale);
  std::vector<float> floats(count);
  for (float& x : floats) x = normal(random);
  return floats;
}

// Owns rows of any element type. The data starts at an odd address, as rows need no alignment.
class TestVectors {
 public:
  TestVectors(std::mt19937& random, ElementType type, size_t count, size_t dim, float scale = 1.0f)
      : TestVectors(RandomFloats(random, count * dim, scale), type, count, dim) {}

  TestVectors(const std::vector<float>& elements, ElementType type, size_t count, size_t dim)
      : bytes_(1 + elements.size() * ElementBytes(type)), view_{nullptr, type, count, dim} {
    view_.data = bytes_.data() + 1;
    FromFloat32(elements, type, bytes_.data() + 1);
  }

  const VectorsView& view() const { return view_; }

  // The elements as stored, that is, after rounding to the type.
  std::vector<float> floats() const {
    std::vector<float> out(view_.count * view_.dim);
    ToFloat32(view_.data, view_.type, out);
    return out;
  }

 private:
  std::vector<std::byte> bytes_;
  VectorsView view_;
};

// Calls body() once with every instruction set this machine supports, best first, then restores the
// best one.
template <class Body>
void ForEachTarget(Body body) {
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    body();
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

}  // namespace attic

#endif  // ATTIC_TESTS_UNIT_ATTENTION_TEST_VECTORS_H_
