// Network options as JSON: the part of a checkpoint's and a served file's header that says what network it is.
#pragma once
#include <string>

#include "nn/unit.hpp"

namespace nibble {

std::string network_options_to_json(const NetworkOptions& options);
/// Throws ModelError naming `source` when the text is not JSON, lacks a key, has an unknown one or holds a wrong type;
/// ranges are checked by build_resnet.
NetworkOptions network_options_from_json(const std::string& text, const std::string& source);

std::string name_of(Granularity g);    // per_tensor, per_channel
std::string name_of(PerChannelBy by);  // fold, shift, shift+fold
std::string name_of(QuantMode mode);   // integer, fake
std::string name_of(QuantScheme s);    // paper, nearest
/// Parse the names above; throw UsageError listing them.
Granularity granularity_from(const std::string& name);
PerChannelBy per_channel_by_from(const std::string& name);
QuantMode quant_mode_from(const std::string& name);
QuantScheme quant_scheme_from(const std::string& name);

}  // namespace nibble
