// Kernel calls that are checked once and made many times: a compiled plan calls the same kernels on the same
// memory for every picture, and Python would spend 10 microseconds on each to say the same again.
#pragma once

#include <pybind11/pybind11.h>

#include <functional>
#include <stdexcept>
#include <vector>

#include "../cpu/dispatch.h"

namespace nnlite {

class Calls {
    using List = std::vector<std::function<void()>>;

   public:
    // Calls `function`, and keeps the kernel calls that it makes instead of making them; returns how many. Whoever
    // keeps them keeps the memory that they work on, too.
    size_t keep(const pybind11::function& function) {
        const size_t before = list_.size();
        List* const outer = listener();
        listener() = &list_;
        try {
            function();
        } catch (...) {
            listener() = outer;
            throw;
        }
        listener() = outer;
        return list_.size() - before;
    }

    // All of them, in order. Other Python threads run meanwhile.
    void run() const {
        // Prepared weights are as this instruction set wants them.
        if (&kernels() != kernels_) throw std::runtime_error("the instruction set was changed; compile again");
        pybind11::gil_scoped_release released;
        const FlushDenormals flush;
        for (const auto& call : list_) call();
    }

    // Where this thread keeps its calls now, or null where it makes them.
    static List*& listener() {
        static thread_local List* list = nullptr;
        return list;
    }

   private:
    List list_;
    const Kernels* kernels_ = &kernels();
};

// Makes a kernel call, or keeps it: `function` holds copies of all that it needs.
template <class Function>
void without_gil(const Function& function) {
    if (auto* kept = Calls::listener()) {
        kept->emplace_back(function);
        return;
    }
    pybind11::gil_scoped_release released;  // other Python threads run meanwhile
    const FlushDenormals flush;             // denormals are zeros in this one
    function();
}

}  // namespace nnlite
