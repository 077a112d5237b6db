// A fixture that runs code on each instruction set that it was compiled for and this processor has.
#pragma once

#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <cstdint>
#include <vector>

namespace c2r::testing {

class EveryTarget : public ::testing::Test {
 protected:
  // Listed once: the list is cut down to what is in use.
  EveryTarget() : targets_(hwy::SupportedAndGeneratedTargets()) {}
  ~EveryTarget() override { use(0); }

  const std::vector<std::int64_t>& targets() const { return targets_; }

  /// Calls `body` once for each instruction set, which Highway's dispatch takes meanwhile.
  template <class Body>
  void on_every_target(const Body& body) {
    for (const std::int64_t target : targets_) {
      SCOPED_TRACE(hwy::TargetName(target));
      use(target);
      body();
    }
  }

 private:
  static void use(std::int64_t target) {
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }

  std::vector<std::int64_t> targets_;
};

}  // namespace c2r::testing
