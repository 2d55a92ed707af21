#include "nn/unit.hpp"

#include <algorithm>

namespace nibble {

std::vector<int> quantizers_of(const Network& network, int value) {
  std::vector<int> found;
  for (const UnitSpec& u : network.units)
    if (u.input == value && u.quantizer >= 0 && std::find(found.begin(), found.end(), u.quantizer) == found.end())
      found.push_back(u.quantizer);
  std::stable_partition(found.begin(), found.end(),
                        [&](int q) { return !network.quantizers[static_cast<size_t>(q)].is_signed; });
  return found;
}

bool rounded_before_codes(const Network& network, int value) {
  if (value == kImageValue) return false;
  if (network.units[static_cast<size_t>(value - 1)].rounds_output || quantizers_of(network, value).size() > 1)
    return true;
  return std::any_of(network.units.begin(), network.units.end(),
                     [&](const UnitSpec& u) { return u.input == value && u.quantizer < 0; });
}

bool read_by_average_pool(const Network& network, int value) {
  return std::any_of(network.units.begin(), network.units.end(),
                     [&](const UnitSpec& u) { return u.input == value && u.average_pool; });
}

}  // namespace nibble
