// A model over a data set: which image was right, also where some cannot be read.
#include "apps/dataset_evaluation.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <set>

#include "engine/error.hpp"

namespace nibble::apps {
namespace {

/// Seven images in the grey of their index, of two classes in turn; the images in `bad` cannot be read.
class GreyDataset : public Dataset {
 public:
  explicit GreyDataset(std::set<int64_t> bad) : bad_(std::move(bad)) {}
  int64_t size() const override { return 7; }
  const std::vector<std::string>& class_names() const override { return names_; }
  int label(int64_t index) const override { return static_cast<int>(index % 2); }
  std::string path(int64_t index) const override { return "image " + std::to_string(index); }
  Image read(int64_t index) const override {
    if (bad_.contains(index)) throw DataError("{} is no image", path(index));
    Image image;
    image.width = image.height = 8;
    const std::shared_ptr<uint8_t[]> pixels(new uint8_t[8 * 8 * 3]);
    std::fill_n(pixels.get(), 8 * 8 * 3, static_cast<uint8_t>(10 * index));
    image.pixels = pixels;
    return image;
  }

 private:
  std::vector<std::string> names_ = {"even", "odd"};
  std::set<int64_t> bad_;
};

/// Takes the images in `odd` for the second class.
RunModel model_that_sees(const std::set<int64_t>& odd) {
  return [=](const Tensor& images) {
    Tensor logits(DType::f32, {images.dim(0), 2});
    for (int64_t i = 0; i < images.dim(0); ++i) {
      const bool is_odd = odd.contains(images.data<uint8_t>()[i * images.size() / images.dim(0)] / 10);
      logits.row<float>(i)[0] = is_odd ? 0.0f : 1.0f;
      logits.row<float>(i)[1] = is_odd ? 1.0f : 0.0f;
    }
    return logits;
  };
}

std::string outcomes(const std::set<int64_t>& odd, const std::set<int64_t>& bad, EvaluationOptions options = {}) {
  options.batch_size = 2;
  return evaluate_dataset(model_that_sees(odd), std::make_shared<GreyDataset>(bad), {.size = 8}, options).outcomes;
}

TEST_CASE("dataset evaluation: each image's outcome stands at its place, whatever was left out before it") {
  CHECK(outcomes({1, 3, 5}, {}) == "1111111");
  CHECK(outcomes({0, 1, 5}, {}) == "0110111");
  CHECK(outcomes({0, 1, 5}, {0}) == "-110111");
  CHECK(outcomes({0, 1, 5}, {2, 3}) == "01--111");
  CHECK(outcomes({1, 3}, {6}) == "111110-");
  CHECK(outcomes({1, 3, 5}, {}, {.limit = 4}) == "1111---");
}

}  // namespace
}  // namespace nibble::apps
