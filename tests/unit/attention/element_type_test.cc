#include "attention/element_type.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "attention/vector_kernels.h"
#include "gtest/gtest.h"
#include "tests/unit/attention/test_vectors.h"

namespace attic {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr size_t kPatterns = 1 << 16;

// Sign, exponent and fraction taken apart and put together in double: exact.
double DecodeHalf(uint16_t bits) {
  const int exponent = (bits >> 10) & 31;
  const int fraction = bits & 1023;
  const double sign = (bits & 0x8000) != 0 ? -1 : 1;
  if (exponent == 31) return fraction != 0 ? std::nan("") : sign * kInfinity;
  if (exponent == 0) return sign * std::ldexp(fraction, -24);
  return sign * std::ldexp(1024 + fraction, exponent - 25);
}

double DecodeBFloat16(uint16_t bits) { return std::bit_cast<float>(uint32_t{bits} << 16); }

double Decode(uint16_t bits, ElementType type) {
  return type == ElementType::kFloat16 ? DecodeHalf(bits) : DecodeBFloat16(bits);
}

// The nearest pattern to x, even on ties, by search among the magnitudes, which are in order of
// their bits. The pattern of infinity stands for the power of two beyond the largest number.
uint16_t EncodeBySearch(float x, ElementType type) {
  const uint16_t infinity = type == ElementType::kFloat16 ? 0x7C00 : 0x7F80;
  const double magnitude = std::abs(static_cast<double>(x));
  const auto value = [&](uint16_t bits) {
    if (bits < infinity) return Decode(bits, type);
    return 2 * Decode(infinity - (type == ElementType::kFloat16 ? 0x400 : 0x80), type);
  };
  uint16_t low = 0, high = infinity;
  while (high - low > 1) {
    const uint16_t middle = (low + high) / 2;
    (value(middle) <= magnitude ? low : high) = middle;
  }
  const double below = magnitude - value(low), above = value(high) - magnitude;
  const uint16_t nearest = below < above || (below == above && low % 2 == 0) ? low : high;
  return nearest | (std::signbit(x) ? 0x8000 : 0);
}

std::vector<uint16_t> AllPatterns() {
  std::vector<uint16_t> patterns(kPatterns);
  for (size_t i = 0; i < kPatterns; ++i) patterns[i] = static_cast<uint16_t>(i);
  return patterns;
}

class NarrowTypeTest : public testing::TestWithParam<ElementType> {};

TEST_P(NarrowTypeTest, WidensEveryPatternExactlyAndBack) {
  const std::vector<uint16_t> patterns = AllPatterns();
  const auto* bytes = reinterpret_cast<const std::byte*>(patterns.data());
  ForEachTarget([&] {
    SCOPED_TRACE(VectorTargetName());
    std::vector<float> wide(kPatterns);
    ToFloat32(bytes, GetParam(), wide);
    std::vector<uint16_t> narrow(kPatterns);
    FromFloat32(wide, GetParam(), reinterpret_cast<std::byte*>(narrow.data()));
    for (size_t i = 0; i < kPatterns; ++i) {
      const double expected = Decode(patterns[i], GetParam());
      if (std::isnan(expected)) {
        ASSERT_TRUE(std::isnan(wide[i])) << std::hex << i;
        ASSERT_TRUE(std::isnan(Decode(narrow[i], GetParam()))) << std::hex << i;
        continue;
      }
      ASSERT_EQ(wide[i], expected) << std::hex << i;
      ASSERT_EQ(std::signbit(wide[i]), (i & 0x8000) != 0) << std::hex << i;
      ASSERT_EQ(narrow[i], patterns[i]);
    }
  });
}

// Floats around every rounding boundary: each number of the type, the midpoints between neighbours,
// and the floats next to both; then random bits.
std::vector<float> RoundingCases(ElementType type, uint32_t seed) {
  std::vector<float> cases = {0.0f,
                              -0.0f,
                              std::numeric_limits<float>::max(),
                              std::numeric_limits<float>::denorm_min(),
                              65519.99f,
                              65520.0f};
  const uint16_t infinity = type == ElementType::kFloat16 ? 0x7C00 : 0x7F80;
  for (uint16_t bits = 0; bits + 1 < infinity; ++bits) {
    const double value = Decode(bits, type);
    const auto middle = static_cast<float>((value + Decode(bits + 1, type)) / 2);
    const float sign = bits % 3 == 0 ? -1.0f : 1.0f;
    for (const float x : {static_cast<float>(value), middle}) {
      cases.push_back(sign * x);
      cases.push_back(sign * std::nextafter(x, kInfinity));
      cases.push_back(sign * std::nextafter(x, -kInfinity));
    }
  }
  std::mt19937 random(seed);
  for (int i = 0; i < 20000; ++i) {
    const float x = std::bit_cast<float>(static_cast<uint32_t>(random()));
    if (std::isfinite(x)) cases.push_back(x);
  }
  return cases;
}

TEST_P(NarrowTypeTest, RoundsToNearestEven) {
  const uint32_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  const std::vector<float> cases = RoundingCases(GetParam(), seed);
  std::vector<uint16_t> expected(cases.size());
  for (size_t i = 0; i < cases.size(); ++i) expected[i] = EncodeBySearch(cases[i], GetParam());
  ForEachTarget([&] {
    SCOPED_TRACE(VectorTargetName());
    std::vector<uint16_t> narrow(cases.size());
    FromFloat32(cases, GetParam(), reinterpret_cast<std::byte*>(narrow.data()));
    for (size_t i = 0; i < cases.size(); ++i) {
      ASSERT_EQ(narrow[i], expected[i]) << std::hexfloat << cases[i];
    }
  });
}

TEST_P(NarrowTypeTest, KeepsInfinitiesAndNaN) {
  const std::vector<float> special = {kInfinity, -kInfinity, std::nanf(""), -std::nanf(""),
                                      std::bit_cast<float>(0x7F800001u)};
  ForEachTarget([&] {
    std::vector<uint16_t> narrow(special.size());
    FromFloat32(special, GetParam(), reinterpret_cast<std::byte*>(narrow.data()));
    EXPECT_EQ(Decode(narrow[0], GetParam()), kInfinity);
    EXPECT_EQ(Decode(narrow[1], GetParam()), -kInfinity);
    for (size_t i = 2; i < special.size(); ++i) {
      EXPECT_TRUE(std::isnan(Decode(narrow[i], GetParam()))) << VectorTargetName() << " " << i;
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Types, NarrowTypeTest,
                         testing::Values(ElementType::kBFloat16, ElementType::kFloat16),
                         [](const auto& info) { return ElementTypeName(info.param); });

// Every length up to several vectors, at an odd address, and nothing written beyond the end.
TEST(ElementTypeTest, ConvertsAnyLengthAndNothingBeyond) {
  std::mt19937 random(3);
  ForEachTarget([&] {
    for (const ElementType type : kElementTypes) {
      const size_t width = ElementBytes(type);
      for (size_t count = 0; count < 70; ++count) {
        const std::vector<float> in = RandomFloats(random, count);
        std::vector<std::byte> bytes(1 + count * width + 8, std::byte{0x5A});
        FromFloat32(in, type, bytes.data() + 1);
        for (size_t i = 0; i < 8; ++i) ASSERT_EQ(bytes[1 + count * width + i], std::byte{0x5A});
        std::vector<float> out(count + 1, 77.0f);
        ToFloat32(bytes.data() + 1, type, std::span(out.data(), count));
        ASSERT_EQ(out[count], 77.0f);
        for (size_t i = 0; i < count; ++i) ASSERT_NEAR(out[i], in[i], std::abs(in[i]) / 256);
      }
    }
  });
}

TEST(ElementTypeTest, AllFiniteFindsOneBadElementAnywhere) {
  ForEachTarget([&] {
    SCOPED_TRACE(VectorTargetName());
    for (const ElementType type : kElementTypes) {
      const size_t width = ElementBytes(type);
      std::vector<float> in(67, std::numeric_limits<float>::max());
      if (type != ElementType::kFloat32) in.assign(in.size(), 65504.0f);
      std::vector<std::byte> bytes(1 + in.size() * width);
      FromFloat32(in, type, bytes.data() + 1);
      ASSERT_TRUE(AllFinite(bytes.data() + 1, type, in.size()));
      for (const float bad : {kInfinity, -kInfinity, std::nanf("")}) {
        for (size_t i = 0; i < in.size(); ++i) {
          std::vector<std::byte> broken = bytes;
          FromFloat32(std::span(&bad, 1), type, broken.data() + 1 + i * width);
          ASSERT_FALSE(AllFinite(broken.data() + 1, type, in.size())) << i;
          ASSERT_TRUE(AllFinite(broken.data() + 1, type, i)) << i;
        }
      }
    }
  });
}

TEST(ElementTypeTest, AllFiniteAgreesWithEveryPattern) {
  for (const ElementType type : {ElementType::kBFloat16, ElementType::kFloat16}) {
    for (const uint16_t bits : AllPatterns()) {
      ASSERT_EQ(AllFinite(reinterpret_cast<const std::byte*>(&bits), type, 1),
                std::isfinite(Decode(bits, type)));
    }
  }
}

TEST(ElementTypeTest, NamesAndSizes) {
  EXPECT_STREQ(ElementTypeName(ElementType::kFloat32), "float32");
  EXPECT_STREQ(ElementTypeName(ElementType::kBFloat16), "bfloat16");
  EXPECT_STREQ(ElementTypeName(ElementType::kFloat16), "float16");
  const VectorsView view = {nullptr, ElementType::kBFloat16, 10, 6};
  EXPECT_EQ(view.row_bytes(), 12u);
  EXPECT_EQ(view.bytes(), 120u);
  EXPECT_EQ(view.rows(3, 4).data - view.data, 36);
  EXPECT_EQ(view.rows(3, 4).count, 4u);
}

}  // namespace
}  // namespace attic
