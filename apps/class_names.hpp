// Names of a model's classes from a file, for models that come without.
#pragma once
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace nibble::apps {

/// One name a line, in the order of the model's outputs; or JSON: a list of names, or an object of their numbers from
/// "0" on, each with a name or with the list of a folder's name and a name, as in the imagenet_class_index.json that
/// goes round with Keras ({"0": ["n01440764", "tench"], ...}), which become "n01440764 tench".
/// UsageError naming the line or number: an empty name, a name that is not UTF-8, a number that is missing.
std::vector<std::string> parse_class_names(std::string_view text, const std::string& source);

/// Those of a file, of which there must be `classes`; UsageError, DataError above 32 MiB, DiskError.
std::vector<std::string> read_class_names(const std::filesystem::path& file, int64_t classes);

}  // namespace nibble::apps
