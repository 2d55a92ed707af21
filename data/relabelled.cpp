#include "data/relabelled.hpp"

#include <algorithm>
#include <map>
#include <string_view>

#include "engine/error.hpp"

namespace nibble {
namespace {

/// "n" and eight digits.
bool is_wordnet_number(std::string_view name) {
  return name.size() == 9 && name.front() == 'n' &&
         std::all_of(name.begin() + 1, name.end(), [](char c) { return c >= '0' && c <= '9'; });
}

}  // namespace

std::vector<int> places_of(const std::vector<std::string>& classes, const std::vector<std::string>& names) {
  constexpr int kSeveral = -2;
  std::map<std::string_view, int> place;
  const auto enter = [&](std::string_view name, size_t k) {
    const auto [entry, is_new] = place.emplace(name, static_cast<int>(k));
    if (!is_new) entry->second = kSeveral;
  };
  for (size_t k = 0; k < names.size(); ++k) {
    enter(names[k], k);
    const std::string_view first = std::string_view(names[k]).substr(0, names[k].find(' '));
    if (first.size() < names[k].size() && is_wordnet_number(first)) enter(first, k);
  }
  std::vector<int> places;
  for (const std::string& name : classes) {
    const auto found = place.find(name);
    places.push_back(found == place.end() ? -1 : std::max(-1, found->second));
  }
  return places;
}

Relabelled::Relabelled(DatasetPtr whole, std::vector<std::string> names, std::vector<int> places)
    : whole_(std::move(whole)), names_(std::move(names)), places_(std::move(places)) {
  if (std::ssize(places_) != whole_->num_classes())
    throw UsageError("{} places were given for {} classes; give each class its place", places_.size(),
                     whole_->num_classes());
  for (const int place : places_)
    if (place < 0 || place >= std::ssize(names_))
      throw UsageError("the place {} is none of {} classes; leave out images of unknown classes", place, names_.size());
}

}  // namespace nibble
