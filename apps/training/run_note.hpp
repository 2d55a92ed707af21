// What a checkpoint notes about its run, and whether a run that would continue from it is the same run.
#pragma once
#include <cstdint>
#include <set>
#include <string>

#include "apps/training/run_data.hpp"
#include "nn/checkpoint.hpp"
#include "nn/train_options.hpp"

namespace nibble::apps {

/// What must be equal for a resumed run to continue bit for bit, and the best result so far.
struct RunNote {
  std::string decoder;    // RunData::decoder
  std::string options;    // config text without what may change on resume; empty: an older version's note
  std::string images;     // RunData::digest; empty: as above
  double best_top1 = -1;  // percent; -1: no evaluation yet
  int64_t best_step = -1;
};

/// Options that may be given when a run is resumed, with new values, too: no result depends on them, or (decoder) it is
/// checked separately.
const std::set<std::string>& changeable_on_resume();

/// The note of a run before its first evaluation; `config_text` is its resolved config.
RunNote note_of(const RunData& data, const std::string& config_text);

/// The note as it stands in a checkpoint: one JSON object.
std::string to_json(const RunNote& note);
/// Reads it back. ModelError, with `source` (the checkpoint's path), for a text that is not one.
RunNote parse_run_note(const std::string& text, const std::string& source);

/// The JPEG decoder that the checkpoint's run noted; empty in a checkpoint of another program.
std::string noted_decoder(const Checkpoint& checkpoint);

/// A run about to continue from a checkpoint.
struct ResumedRun {
  const std::string& folder;
  const TrainOptions& options;
  const RunData& data;
  const RunNote& note;  // of the run as it is now
};
/// Throws unless the checkpoint at `path`, with its note `held_note`, is of this run, naming the first difference and
/// what to do: UsageError for the decoder or an option, DataError for classes or images, ModelError for the network.
void require_same_run(const Checkpoint& held, const RunNote& held_note, const std::string& path, const ResumedRun& now);

}  // namespace nibble::apps
