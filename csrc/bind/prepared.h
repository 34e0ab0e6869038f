// Prepared weights, behind a line that says whose they are: panels are as wide as the instruction set wants them.
#pragma once

#include <array>
#include <cstdio>
#include <cstring>

#include "args.h"

namespace nnlite {

constexpr size_t prepared_head = 64;
using Mark = std::array<char, prepared_head>;

inline Mark mark(const char* variant) {
    Mark text = {};
    std::snprintf(text.data(), text.size(), "%s %s", variant, kernels().name);
    return text;
}

// Where `size` bytes of new weights go; they are marked as this variant's.
inline void* prepared_for(const char* variant, Object prepared, size_t size) {
    char* memory = static_cast<char*>(bytes(prepared, "prepared", prepared_head + size));
    const Mark text = mark(variant);
    std::memcpy(memory, text.data(), prepared_head);
    return memory + prepared_head;
}

// The weights, which must be this variant's.
inline const void* prepared_by(const char* variant, Object prepared, size_t size) {
    const char* memory = static_cast<const char*>(bytes(prepared, "prepared", prepared_head + size));
    const Mark text = mark(variant);
    if (std::memcmp(memory, text.data(), prepared_head) != 0)
        refuse("prepared", text.data(), "weights prepared for another");
    return memory + prepared_head;
}

}  // namespace nnlite
