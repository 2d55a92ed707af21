// Label lists of any content: what is accepted is names of files and classes.
#include <stdexcept>

#include "data/label_list.hpp"
#include "engine/error.hpp"
#include "engine/utf8.hpp"
#include "tests/fuzz/target.hpp"

namespace nibble::testing {
namespace {

bool check_labels(std::span<const uint8_t> input) {
  std::vector<LabelledFile> all;
  try {
    all = parse_label_list(text_of(input), "fuzzed.txt", 1000);
  } catch (const DataError&) {
    return false;
  }
  int64_t line = 0;
  for (const LabelledFile& l : all) {
    const bool inside = l.file.find('/') == std::string::npos && l.class_name.find('/') == std::string::npos &&
                        l.class_name != "." && l.class_name != "..";
    if (!inside || !is_image_name(l.file) || l.class_name.empty() || !is_utf8(l.class_name) || l.line <= line)
      throw std::logic_error("a label list gives what is not a name");
    line = l.line;
  }
  return true;
}

std::vector<FuzzInput> labels_seeds() {
  return {bytes_of("val_0.JPEG\tn03444034\t0\t32\t44\t62\nval_1.JPEG\tn04067472\t52\t55\t57\t59\n"),
          bytes_of("ImageId,PredictionString\r\nILSVRC2012_val_00048981,n03995372 85 1 499 272 \r\n"),
          bytes_of("\n  a.jpg   cat\n\nb.png,dog,1\nmy cat.jpeg\tbig cat\tx\nc c.JPG,d\xc3\xb6g\nlast.jpg cat")};
}

}  // namespace

const FuzzTarget kLabelsTarget = {"labels", check_labels, labels_seeds};

}  // namespace nibble::testing
