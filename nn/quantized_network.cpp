#include "nn/quantized_network.hpp"

namespace nibble {

size_t QuantizedNetwork::last_plain_reader(int value) const {
  const std::vector<UnitSpec>& units = network.units;
  for (size_t u = units.size(); u-- > static_cast<size_t>(value);) {
    const bool as_input = units[u].input == value && (units[u].average_pool || input_quantizer(units[u]) == nullptr);
    if (as_input || units[u].shortcut == value) return u;
  }
  return static_cast<size_t>(value) - 1;
}

}  // namespace nibble
