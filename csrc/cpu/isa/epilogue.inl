// What follows a sum while it is in registers: bias, residual and activation cost no pass over memory of their own.

namespace nnlite {
namespace {

// What an activation keeps a sum within: anything where there is none, or a function that comes later (after.h).
struct Bounds {
    vec low, high;

    NNLITE_INLINE explicit Bounds(const Activation& act)
        : low(splat(is_bound(act) ? act.low : -__builtin_inff())),
          high(splat(is_bound(act) ? act.high : __builtin_inff())) {}

    static bool is_bound(const Activation& act) {
        return act.kind == relu_activation || act.kind == clamp_activation;
    }

    // `v < low ? low : v` and not max(v, low): a NaN must stay one, whichever operand an instruction prefers.
    NNLITE_INLINE vec within(vec v) const {
        v = v < low ? low : v;
        return v > high ? high : v;
    }
};

}  // namespace
}  // namespace nnlite
