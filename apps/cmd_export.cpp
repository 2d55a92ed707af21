// nibble export
#include <filesystem>
#include <nlohmann/json.hpp>

#include "apps/command.hpp"
#include "apps/command_line.hpp"
#include "apps/console.hpp"
#include "apps/model_input.hpp"
#include "apps/options.hpp"
#include "apps/served_export.hpp"
#include "nn/atomic_file.hpp"
#include "nn/run_folder.hpp"
#include "nn/runtime/served_file.hpp"

namespace nibble::apps {

namespace fs = std::filesystem;

namespace {

class Export : public Command {
 public:
  const char* name() const override { return "export"; }
  const char* summary() const override { return "write a checkpoint as a packed served model and check it"; }
  const char* examples() const override { return "  nibble export runs/a --out model.safetensors"; }

  void declare(CLI::App& app) override {
    add_option(app, "CHECKPOINT", model_, "run folder or checkpoint").required();
    add_option(app, "--out", out_, "served file to write").required();
    add_flag(app, "--json", json_, "print one JSON object");
    declare_threads(app, threads_);
  }

  int run() override {
    apply_threads(threads_);
    refuse_other_format(out_);
    const fs::path path = resolve_model_path(model_);
    const Checkpoint checkpoint = load_checkpoint(path);
    refuse_earlier_than_calibrated(path, checkpoint);
    std::error_code ignored;
    if (fs::equivalent(path, out_, ignored))
      throw UsageError("--out {} is the checkpoint itself, which training resumes from; choose another file", out_);
    refuse_to_replace_other_than_served(out_);
    const auto [served, sizes] = export_served(checkpoint, out_);
    if (json_)
      print_json(served, sizes);
    else
      print_table(served, sizes);
    return 0;
  }

 private:
  /// For a run that has been calibrated but not evaluated since: its best is from before.
  void refuse_earlier_than_calibrated(const fs::path& path, const Checkpoint& checkpoint) const {
    const fs::path latest = fs::path(model_) / "latest";
    if (!checkpoint.model.calibration_pending() || path == latest || !path_exists(latest)) return;
    if (load_checkpoint(latest).model.calibration_pending()) return;
    throw ModelError(
        "{} is from before calibration, with bf16 activations, and {} has not been evaluated since; export {}, or "
        "continue training",
        path.string(), model_, latest.string());
  }

  void print_json(const ServedModel& served, const ServedFileSizes& sizes) const {
    nlohmann::ordered_json j;
    j["file"] = out_;
    j["bytes"] = sizes.file_bytes;
    j["weight_bytes"] = sizes.weight_bytes;
    j["layers"] = nlohmann::ordered_json::array();
    for (size_t u = 0; u < served.network.units.size(); ++u) {
      const UnitSpec& unit = served.network.units[u];
      j["layers"].push_back({{"name", unit.name},
                             {"bits", unit.precision.weight_bits},
                             {"weights", unit.weight_count()},
                             {"bytes", sizes.layer_bytes[u]}});
    }
    print_object(j);
  }

  void print_table(const ServedModel& served, const ServedFileSizes& sizes) const {
    std::vector<std::vector<std::string>> rows = {{"layer", "bits", "weights", "bytes"}};
    for (size_t u = 0; u < served.network.units.size(); ++u) {
      const UnitSpec& unit = served.network.units[u];
      rows.push_back({unit.name, std::to_string(unit.precision.weight_bits), grouped(unit.weight_count()),
                      grouped(static_cast<int64_t>(sizes.layer_bytes[u]))});
    }
    print(format_table(rows));
    print(fmt::format("{}: {} bytes, {} of them weights; logits identical to the checkpoint's on the check images",
                      out_, grouped(static_cast<int64_t>(sizes.file_bytes)),
                      grouped(static_cast<int64_t>(sizes.weight_bytes))));
  }

  std::string model_, out_;
  bool json_ = false;
  int64_t threads_ = 0;
};

}  // namespace

Command* export_command() {
  return new Export;
}

}  // namespace nibble::apps
