// nibble synth
#include <nlohmann/json.hpp>

#include "apps/command.hpp"
#include "apps/command_line.hpp"
#include "apps/console.hpp"
#include "apps/options.hpp"
#include "data/synth.hpp"
#include "engine/error.hpp"

namespace nibble::apps {

namespace {

class Synth : public Command {
 public:
  const char* name() const override { return "synth"; }
  const char* summary() const override { return "write a procedural image folder: ten classes of textured shapes"; }
  const char* examples() const override {
    return "  nibble synth --out shapes\n  nibble synth --out big --train 2000 --val 200 --size 96";
  }

  void declare(CLI::App& app) override {
    add_option(app, "--out", out_, "folder to write").required();
    add_option(app, "--train", args_.train_per_class, "training images per class").capture_default_str();
    add_option(app, "--val", args_.val_per_class, "validation images per class").capture_default_str();
    add_option(app, "--size", args_.size, "side in pixels").capture_default_str();
    add_option(app, "--seed", args_.seed, "seed of the images").capture_default_str();
    add_flag(app, "--json", json_, "print one JSON object");
    declare_threads(app, threads_);
  }

  int run() override {
    apply_threads(threads_);
    args_.dir = out_;
    const SyntheticFolderCounts counts = write_synthetic_folder(args_);
    if (json_)
      print_object({{"train", counts.train}, {"val", counts.val}, {"classes", counts.classes}});
    else
      print(fmt::format("{}: {} training and {} validation images, {} classes", one_line(out_), counts.train,
                        counts.val, counts.classes));
    return 0;
  }

 private:
  std::string out_;
  SyntheticFolderArgs args_;
  bool json_ = false;
  int64_t threads_ = 0;
};

}  // namespace

Command* synth_command() {
  return new Synth;
}

}  // namespace nibble::apps
