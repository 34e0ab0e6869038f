#include "dispatch.h"

#include <atomic>
#include <stdexcept>

#if defined(__x86_64__)
#include <cpuid.h>
#include <xmmintrin.h>
#endif

namespace nnlite {
namespace {

struct Isa {
    const Kernels* kernels;
    bool usable;
};

#if defined(__x86_64__)
// Leaf 7 of CPUID, for what __builtin_cpu_supports() of older compilers does not know; zeros where there is none.
struct Leaf7 {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    explicit Leaf7(unsigned part) { __get_cpuid_count(7, part, &eax, &ebx, &ecx, &edx); }
};
#endif

// Best first.
std::vector<Isa> isas() {
    std::vector<Isa> list;
#if defined(__x86_64__)
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    const bool vnni = avx512 && __builtin_cpu_supports("avx512vnni");
#if defined(NNLITE_HAS_AVX512_BF16)
    list.push_back({&kernels_avx512_bf16, vnni && (Leaf7(1).eax >> 5 & 1)});
#endif
    list.push_back({&kernels_avx512_vnni, vnni});
    list.push_back({&kernels_avx512, avx512});
    list.push_back({&kernels_avx2, avx2});
    list.push_back({&kernels_baseline, true});
#elif defined(__aarch64__)
    list.push_back({&kernels_neon, true});  // part of every ARMv8-A
#else
    list.push_back({&kernels_baseline, true});
#endif
    return list;
}

std::atomic<const Kernels*> chosen{nullptr};

std::string join(const std::vector<std::string>& names) {
    std::string text;
    for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
    return text;
}

}  // namespace

const Kernels& kernels() {
    const Kernels* table = chosen.load(std::memory_order_acquire);
    if (!table) {
        for (const Isa& isa : isas())
            if (isa.usable) {
                table = isa.kernels;
                break;
            }
        chosen.store(table, std::memory_order_release);
    }
    return *table;
}

void use_isa(const std::string& name) {
    for (const Isa& isa : isas())
        if (name == isa.kernels->name) {
            if (!isa.usable)
                throw std::invalid_argument("this CPU has no " + name + "; it has " + join(usable_isas()));
            chosen.store(isa.kernels, std::memory_order_release);
            return;
        }
    throw std::invalid_argument("there is no instruction set '" + name + "' in this build; it has " +
                                join(compiled_isas()));
}

std::vector<std::string> compiled_isas() {
    std::vector<std::string> names;
    for (const Isa& isa : isas()) names.emplace_back(isa.kernels->name);
    return names;
}

std::vector<std::string> usable_isas() {
    std::vector<std::string> names;
    for (const Isa& isa : isas())
        if (isa.usable) names.emplace_back(isa.kernels->name);
    return names;
}

#if defined(__x86_64__)
FlushDenormals::FlushDenormals() : mode_(_mm_getcsr()) {
    constexpr unsigned denormals_are_zero = 0x0040, flush_to_zero = 0x8000;
    _mm_setcsr(static_cast<unsigned>(mode_) | denormals_are_zero | flush_to_zero);
}
FlushDenormals::~FlushDenormals() { _mm_setcsr(static_cast<unsigned>(mode_)); }
#elif defined(__aarch64__)
FlushDenormals::FlushDenormals() : mode_(0) {
    asm volatile("mrs %0, fpcr" : "=r"(mode_));
    constexpr unsigned long long flush_to_zero = 1ull << 24;
    asm volatile("msr fpcr, %0" : : "r"(mode_ | flush_to_zero));
}
FlushDenormals::~FlushDenormals() { asm volatile("msr fpcr, %0" : : "r"(mode_)); }
#else
FlushDenormals::FlushDenormals() : mode_(0) {}
FlushDenormals::~FlushDenormals() = default;
#endif

}  // namespace nnlite
