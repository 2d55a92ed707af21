// Named recipes: what a published work trained with, as one value.
#pragma once
#include <string>

namespace nibble::apps {

struct Preset {
  std::string name;
  std::string options;   // TOML, as a config file would give them; all but the learning rate
  double lr_of_256 = 0;  // the rate follows the batch size: lr = lr_of_256 * batch-size / 256
};

/// UsageError listing the names when there is none of this name.
const Preset& preset_named(const std::string& name);

}  // namespace nibble::apps
