// Whether this build is watched by the address sanitizer.
#pragma once

// gcc says so by a macro of its own, clang by a feature.
#if defined(__SANITIZE_ADDRESS__)
#define NIBBLE_ADDRESS_SANITIZER
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define NIBBLE_ADDRESS_SANITIZER
#endif
#endif

namespace nibble {

#ifdef NIBBLE_ADDRESS_SANITIZER
inline constexpr bool kAddressSanitizer = true;
#else
inline constexpr bool kAddressSanitizer = false;
#endif

}  // namespace nibble
