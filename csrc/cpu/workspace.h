// Cutting a caller's scratch memory into arrays. Run over a null pointer it measures how much is needed,
// so that the size and the layout come from the same lines.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace nnlite {

class Workspace {
   public:
    explicit Workspace(void* memory) : base_(reinterpret_cast<uintptr_t>(memory)) {
        used_ = (alignment - base_ % alignment) % alignment;
    }

    template <class T>
    T* take(int64_t count) {
        T* array = base_ ? reinterpret_cast<T*>(base_ + used_) : nullptr;
        used_ += (static_cast<size_t>(count) * sizeof(T) + alignment - 1) / alignment * alignment;
        return array;
    }

    // Bytes needed, whatever the alignment of the memory that will be given.
    size_t size() const { return used_ ? used_ + alignment : 0; }

   private:
    static constexpr size_t alignment = 64;
    uintptr_t base_;
    size_t used_;
};

}  // namespace nnlite
