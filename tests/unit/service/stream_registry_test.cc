#include "server/service/stream_registry.h"

#include <gtest/gtest.h>

namespace attic {
namespace {

struct FakeStream : DrainableStream {
  void Drain() override { ++drained; }
  int drained = 0;
};

TEST(StreamRegistryTest, DrainsWhatIsOpenAndWhatComesLater) {
  StreamRegistry registry;
  FakeStream open;
  FakeStream gone;
  FakeStream late;
  registry.Add(&open);
  registry.Add(&gone);
  registry.Remove(&gone);
  EXPECT_EQ(open.drained, 0);
  registry.DrainAll();
  EXPECT_EQ(open.drained, 1);
  EXPECT_EQ(gone.drained, 0);
  registry.Add(&late);
  EXPECT_EQ(late.drained, 1);
}

}  // namespace
}  // namespace attic
