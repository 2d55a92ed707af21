#include "apps/served_export.hpp"

#include <cctype>
#include <string>
#include <system_error>
#include <utility>

#include "apps/training/run_note.hpp"
#include "engine/error.hpp"
#include "engine/files.hpp"
#include "nn/runtime/verify_served.hpp"

namespace nibble::apps {

void refuse_other_format(const std::filesystem::path& out) {
  std::string ending = out.extension().string();
  for (char& c : ending) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  for (const char* other : {".onnx", ".pt", ".pth", ".tflite", ".xml"})
    if (ending == other)
      throw UsageError(
          "--out {} asks for a format that nibble does not write; it makes safetensors files for nibble predict and "
          "eval (nn/FORMAT.md says what is in them), so give a name like model.safetensors",
          out.string());
}

void refuse_to_replace_other_than_served(const std::filesystem::path& out) {
  std::error_code none;
  if (std::filesystem::is_directory(out, none))
    throw UsageError("--out {} is a folder; name the file to write in it", out.string());
  if (!std::filesystem::is_regular_file(out, none) || std::filesystem::file_size(out, none) == 0) return;
  bool served = false;
  try {
    served = kind_of(SafetensorsFile::open(out)) == ModelFileKind::kServed;
  } catch (const ModelError&) {
  }
  if (!served)
    throw UsageError("{} exists and is not a served model, so it is not replaced; choose another --out", out.string());
}

ServedExport export_served(const Checkpoint& checkpoint, const std::filesystem::path& out,
                           const std::map<std::string, std::string>& notes) {
  ServedModel served = make_served(checkpoint.model);
  served.class_names = checkpoint.class_names;
  served.notes["steps"] = std::to_string(checkpoint.steps_done);
  if (const std::string decoder = noted_decoder(checkpoint); !decoder.empty()) served.notes["decoder"] = decoder;
  served.notes.insert(notes.begin(), notes.end());
  require_calibrated(served);
  const Tensor logits = check_logits(checkpoint.model);
  if (has_check_note(served)) served.notes[kCheckNote] = check_note(logits);
  make_folders_above(out);
  const ServedFileSizes sizes =
      save_served(out, served, [&](const std::filesystem::path& written) { verify_served(logits, written); });
  return {std::move(served), sizes};
}

}  // namespace nibble::apps
