// Label lists: the class of each image of a folder that has no class folders.
#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace nibble {

struct LabelledFile {
  std::string file, class_name;
  int64_t line = 0;  // of the list, from 1
};

/// The list of the images in `root`, DIR/<split>: the first that exists of
///   DIR/<split>/<split>_annotations.txt   Tiny ImageNet's
///   DIR/<split>.txt                       the user's own
///   DIR/LOC_<split>_solution.csv          that of ImageNet's competition
std::optional<std::filesystem::path> label_list_of(const std::filesystem::path& root);

/// The three names, for messages that ask for one of them.
std::string label_list_names(const std::filesystem::path& root);

/// A line is "file class", between them a tab or a comma, with more fields possibly following, or, in a line that has
/// neither, blanks. After a first line "ImageId,PredictionString" a blank ends the class (its boxes follow). Empty
/// lines are ignored. A file without the ending of an image has .JPEG.
/// DataError naming the line: no class, a name with '/' or a zero byte, "." or "..", in quotes, a class that is not
/// UTF-8, more than `most` lines.
std::vector<LabelledFile> parse_label_list(std::string_view text, const std::string& source, size_t most);

/// Whether the name ends in .jpg, .jpeg or .png, in any case, after at least one other character.
bool is_image_name(std::string_view name);

}  // namespace nibble
