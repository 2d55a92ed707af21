// What loading adds to the estimate of a run's time.
#include "apps/loading_probe.hpp"

#include <doctest/doctest.h>

#include "data/synth.hpp"
#include "engine/error.hpp"
#include "engine/parallel.hpp"

namespace nibble::apps {
namespace {

/// Every second image cannot be read.
class HalfBad : public Dataset {
 public:
  explicit HalfBad(bool all_bad) : all_bad_(all_bad) {}
  int64_t size() const override { return images_.size(); }
  const std::vector<std::string>& class_names() const override { return images_.class_names(); }
  int label(int64_t index) const override { return images_.label(index); }
  std::string path(int64_t index) const override { return images_.path(index); }
  Image read(int64_t index) const override {
    if (all_bad_ || index % 2 == 1) throw DataError("{} is bad", path(index));
    return images_.read(index);
  }

 private:
  SyntheticDataset images_{{.split = SynthSplit::train, .per_class = 2, .size = 32, .seed = 0}};
  bool all_bad_;
};

TEST_CASE("loading probe: images that cannot be read are passed over, and where none can there is no time") {
  TrainOptions o;
  o.network.image_size = 32;
  CHECK(probe_loading(HalfBad(false), o) > 0);
  CHECK(probe_loading(HalfBad(false), o) < 1);
  CHECK(probe_loading(HalfBad(true), o) == 0);
}

TEST_CASE("loading probe: a step is no faster than its images come, and shares the cores with those that load them") {
  TrainOptions o;
  const PhaseSeconds step{.before = 0.02, .after = 0.01};
  o.loader_threads = 1;
  CHECK(with_loading(step, 0, o).after == doctest::Approx(0.01));
  CHECK(with_loading(step, 5, o).before >= 5);  // one loader, five seconds each
  CHECK(with_loading({}, 0.5, o).after == 0);   // not known stays not known
  set_threads(available_cores());
  const double cores = available_cores();
  o.loader_threads = 64;
  CHECK(with_loading(step, 0.004, o).after == doctest::Approx(0.01 + 0.004 / cores));
  set_threads(0);
}

}  // namespace
}  // namespace nibble::apps
