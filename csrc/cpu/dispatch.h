// Which instruction set serves: the best that this CPU has, or the one that was asked for.
#pragma once

#include <string>
#include <vector>

#include "../include/kernels.h"

namespace nnlite {

// The kernels in use. Chosen once per process.
const Kernels& kernels();

// Throws std::invalid_argument naming what can be had when `name` was not compiled in or this CPU lacks it.
void use_isa(const std::string& name);

std::vector<std::string> compiled_isas();
std::vector<std::string> usable_isas();

// Denormals are taken and given as zeros while this lives, then the thread's own mode returns: one
// denormal operand costs a hundred cycles on many CPUs, and no network needs 1e-39.
class FlushDenormals {
   public:
    FlushDenormals();
    ~FlushDenormals();
    FlushDenormals(const FlushDenormals&) = delete;
    FlushDenormals& operator=(const FlushDenormals&) = delete;

   private:
    unsigned long long mode_;
};

}  // namespace nnlite
