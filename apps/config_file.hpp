// The config file: TOML with the options' names as keys, and per-layer precision tables.
#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "apps/options.hpp"

namespace nibble::apps {

/// Bytes; a longer file is refused.
constexpr uint64_t kLongestConfig = uint64_t{1} << 20;

/// What the maps below call the entry of a layer.
std::string layer_key(const std::string& layer);

/// Reads FILE into the fields; [layers."layer3.0.conv2"] precision = "w8a8" goes to `overrides`.
/// `given` names the options that the command line has set already: their keys are checked and not stored.
/// UsageError with file:line for unknown keys (and the nearest known one), wrong types and syntax errors, and for what
/// is not a file or too long; DiskError when it cannot be read.
/// Returns the options that the file has, and where: {"lr", "FILE:3"}; layers by layer_key().
std::map<std::string, std::string> read_config(const std::filesystem::path& file,
                                               const std::vector<OptionField>& fields,
                                               const std::set<std::string>& given,
                                               std::vector<PrecisionOverride>& overrides);

/// The same from a text that is kept elsewhere; errors call it `source`.
std::map<std::string, std::string> parse_config(const std::string& text, const std::string& source,
                                                const std::vector<OptionField>& fields,
                                                const std::set<std::string>& given,
                                                std::vector<PrecisionOverride>& overrides);

/// The same fields as TOML text, which read_config reads back equal.
/// UsageError for a text that is not UTF-8, which TOML cannot hold.
std::string write_config(const std::vector<OptionField>& fields, const std::vector<PrecisionOverride>& overrides);

/// A config text without the lines of some options.
std::string without_options(const std::string& config, const std::set<std::string>& names);

/// A config text preceded by those lines of `defaults` whose options it lacks, being from a version before them.
std::string with_missing_options(const std::string& config, const std::string& defaults);

/// Name and values of the first option that two config texts give differently; an empty name when there is none.
struct ConfigDifference {
  std::string name, first, second;
};
/// Options in `ignored` do not count; nor do those that only one text has, which another version wrote, except layers.
ConfigDifference first_difference(const std::string& first, const std::string& second,
                                  const std::set<std::string>& ignored);

}  // namespace nibble::apps
