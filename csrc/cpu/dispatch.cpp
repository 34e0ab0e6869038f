#include "dispatch.h"

#include <atomic>
#include <stdexcept>

#if defined(__x86_64__)
#include <cpuid.h>
#include <xmmintrin.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

namespace nnlite {
namespace {

struct Isa {
    const Kernels* kernels;
    bool usable;
};

#if defined(__x86_64__)
// The kernels of another instruction set, with others for reduced precision.
Kernels with(const char* name, const Kernels& base, const Reduced& reduced) {
    Kernels table = base;
    table.name = name, table.reduced = reduced;
    return table;
}

Kernels with(const char* name, const Kernels& base, const QuadProducts& products) {
    Kernels table = base;
    table.name = name, table.reduced.products = products;
    return table;
}

// Leaf 7 of CPUID, for what __builtin_cpu_supports() of older compilers does not know; zeros where there is none.
struct Leaf7 {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    explicit Leaf7(unsigned part) { __get_cpuid_count(7, part, &eax, &ebx, &ecx, &edx); }
};

#if defined(NNLITE_HAS_AMX)
// Whether this CPU has tiles and products of bytes and bfloat16, and the system lets this process use them. Linux
// gives a thread room for tiles only once its process has asked.
bool has_amx() {
#if defined(__linux__)
    constexpr unsigned tiles_and_products = 1u << 22 | 1u << 24 | 1u << 25, osxsave = 1u << 27;
    constexpr unsigned shapes_and_data = 1u << 17 | 1u << 18;
    constexpr int request_permission = 0x1023, tile_data = 18;
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !(ecx & osxsave)) return false;
    if ((Leaf7(0).edx & tiles_and_products) != tiles_and_products) return false;
    asm("xgetbv" : "=a"(eax), "=d"(edx) : "c"(0));
    return (eax & shapes_and_data) == shapes_and_data && syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
#else
    return false;
#endif
}
#endif
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
    static const Kernels avx512_vnni = with("avx512_vnni", kernels_avx512, reduced_avx512_vnni);
#if defined(NNLITE_HAS_AVX512_BF16)
    const bool bf16 = vnni && (Leaf7(1).eax >> 5 & 1);
    static const Kernels avx512_bf16 = with("avx512_bf16", kernels_avx512, reduced_avx512_bf16);
#if defined(NNLITE_HAS_AMX)
    static const bool amx = bf16 && has_amx();
    static const Kernels amx_tiles = with("amx", avx512_bf16, products_amx);
    list.push_back({&amx_tiles, amx});
#endif
    list.push_back({&avx512_bf16, bf16});
#endif
    list.push_back({&avx512_vnni, vnni});
    list.push_back({&kernels_avx512, avx512});
    list.push_back({&kernels_avx2, avx2});
    list.push_back({&kernels_baseline, true});
    // For tests: last, and so never the best.
    static const Kernels amx_emulated = with("amx_emulated", kernels_avx512, products_amx_emulated);
    list.push_back({&amx_emulated, avx512});
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
