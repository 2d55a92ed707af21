// nibble split
#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "apps/command.hpp"
#include "apps/command_line.hpp"
#include "apps/console.hpp"
#include "apps/options.hpp"
#include "data/image_folder.hpp"
#include "data/validation_split.hpp"
#include "engine/error.hpp"

namespace nibble::apps {

namespace {

namespace fs = std::filesystem;

class Split : public Command {
 public:
  const char* name() const override { return "split"; }
  const char* summary() const override { return "set images aside for validation, where a data set has none"; }
  const char* examples() const override {
    return "  nibble split photos --out photos-split                 # photos/<class>/*.jpg\n"
           "  nibble split photos --out photos-split --val-share 0.2\n"
           "  nibble train --data photos-split --out runs/a";
  }
  const char* notes() const override {
    return "\n\nWhere an image goes depends on its class, its name and the seed alone, so it stays there when others "
           "are added.\nPhotos of one scene tell more of each other than of new ones: let one of them be in DIR, or "
           "sort by hand.";
  }

  void declare(CLI::App& app) override {
    add_option(app, "DIR", dir_, "images in DIR/<class>/ or DIR/train/<class>/").required();
    add_option(app, "--out", out_, "folder to make: OUT/train/<class>/ and OUT/val/<class>/").required();
    add_option(app, "--val-share", share_.share, "of the images of each class, about").capture_default_str();
    add_option(app, "--seed", share_.seed, "seed of the draw").capture_default_str();
    add_flag(app, "--copy", copy_, "copy the files; otherwise OUT has links to them");
    add_flag(app, "--json", json_, "print one JSON object");
  }

  int run() override {
    std::error_code none;
    const bool has_train = fs::is_directory(fs::path(dir_) / "train", none);
    for (const char* name : {"val", "valid", "validation", "test"})
      if (fs::is_directory(fs::path(dir_) / name, none))
        throw UsageError("{} has a folder {} already; {}", dir_, name,
                         std::string(name) == "val" ? "use it as it is" : "call it val, and use it as it is");
    refuse_inside();
    const ImageFolder images({.dir = dir_, .split = has_train ? "train" : "", .decoder = Decoder::auto_});
    if (const std::string others = images.left_out(); !others.empty()) warn(others);
    const std::vector<bool> validation = set_aside(images, share_);
    write_split(images, validation, out_, copy_ ? SplitFiles::kCopies : SplitFiles::kLinks);
    const int64_t aside = std::count(validation.begin(), validation.end(), true), rest = images.size() - aside;
    if (json_)
      print_object({{"train", rest}, {"val", aside}, {"classes", images.num_classes()}});
    else
      print(fmt::format("{}: {} training and {} validation images, {} classes{}", one_line(out_), rest, aside,
                        images.num_classes(), copy_ ? "" : ", as links"));
    return 0;
  }

 private:
  /// It would be taken for a class.
  void refuse_inside() const {
    std::error_code none;
    const fs::path place = fs::weakly_canonical(fs::absolute(out_, none), none);
    const fs::path images = fs::weakly_canonical(fs::absolute(dir_, none), none);
    const fs::path inside = place.lexically_relative(images);
    if (!images.empty() && !inside.empty() && *inside.begin() != "..")
      throw UsageError("--out {} lies in {}, where it would be taken for a class; choose another folder", out_, dir_);
  }

  std::string dir_, out_;
  ValidationShare share_;
  bool copy_ = false, json_ = false;
};

}  // namespace

Command* split_command() {
  return new Split;
}

}  // namespace nibble::apps
