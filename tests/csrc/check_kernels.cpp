// Every native kernel variant on every sample, without Python: under sanitizers, under an emulator of
// another processor, on each instruction set. export_cases.py writes what to call and what must come out.
//
//     check_kernels CASES [EVERY [INSTRUCTION SET...]]
//
// Each EVERY-th case runs three times: as in earnest, then with work cut into single items on one thread
// and on three. All must be right, the last two equal bit for bit, and no input may change.

#include <cmath>
#include <tuple>
#include <type_traits>
#include <unordered_map>

#include "../../csrc/cpu/cpu.h"
#include "../../csrc/cpu/dispatch.h"
#include "../../csrc/cpu/parallel.h"
#include "operands.h"
#include "own_grain.h"

namespace {

// ---- from a case to a call: a function's own signature says what it takes

struct Call {
    const Case& from;
    std::vector<void*> operands;
    void* workspace;
    double epsilon = 0;
    size_t next_number = 0, next_operand = 0;

    double number() {
        if (next_number == from.geometry.size()) fail(from.function + " wants a longer geometry than Python gives it");
        return from.geometry[next_number++];
    }
    int64_t integer() { return static_cast<int64_t>(number()); }
};

template <class T>
struct Argument;

// A geometry of integers alone, in the order of the fields in Python; one with others has its lines below.
template <class Geometry>
struct Argument<const Geometry&> {
    static Geometry take(Call& call) {
        int64_t fields[sizeof(Geometry) / sizeof(int64_t)];
        for (int64_t& field : fields) field = call.integer();
        Geometry g;
        static_assert(sizeof g == sizeof fields && std::is_trivially_copyable_v<Geometry>);
        std::memcpy(&g, fields, sizeof g);
        return g;
    }
};

nnlite::Activation activation(Call& call) {
    const int64_t kind = call.integer();
    const double low = call.number(), high = call.number();
    return {kind, kind == nnlite::relu_activation ? 0.0f : static_cast<float>(low), static_cast<float>(high)};
}

template <>
struct Argument<const nnlite::Conv2d&> {
    static nnlite::Conv2d take(Call& call) {
        int64_t fields[nnlite::conv2d_integers];
        for (int64_t& field : fields) field = call.integer();
        nnlite::Conv2d g;
        std::memcpy(&g, fields, sizeof fields);
        g.act = activation(call);
        return g;
    }
};
template <>
struct Argument<const nnlite::ReducedConv2d&> {
    static nnlite::ReducedConv2d take(Call& call) {
        int64_t fields[nnlite::conv2d_integers];
        for (int64_t& field : fields) field = call.integer();
        nnlite::ReducedConv2d g = {};
        std::memcpy(&g.conv, fields, sizeof fields);
        g.x_zero = call.integer();
        g.residual_scale = static_cast<float>(call.number());
        g.low = static_cast<float>(call.number()), g.high = static_cast<float>(call.number());
        return g;
    }
};
template <>
struct Argument<const nnlite::Rounding&> {
    static nnlite::Rounding take(Call& call) {
        const int64_t size = call.integer();
        const double scale = call.number(), zero = call.number();
        return {size, static_cast<float>(scale), static_cast<float>(zero)};
    }
};
template <>
struct Argument<const nnlite::Norm&> {
    static nnlite::Norm take(Call& call) {
        const int64_t M = call.integer(), C = call.integer();
        call.epsilon = call.number();
        return {M, C, activation(call)};
    }
};
template <>
struct Argument<const nnlite::Eltwise&> {
    static nnlite::Eltwise take(Call& call) {
        const int64_t size = call.integer();
        const double alpha = call.number(), beta = call.number();
        return {size, static_cast<float>(alpha), static_cast<float>(beta), activation(call)};
    }
};
template <>
struct Argument<const nnlite::Named&> {
    static nnlite::Named take(Call& call) {
        const int64_t size = call.integer(), function = call.integer();
        const double a = call.number(), b = call.number();
        return {size, function, static_cast<float>(a), static_cast<float>(b)};
    }
};

template <>
struct Argument<double> {  // the one number that is passed beside a geometry
    static double take(Call& call) { return call.epsilon; }
};
template <class T>
struct Argument<T*> {
    static T* take(Call& call) {
        if (call.next_operand == call.operands.size())
            fail(call.from.function + " wants more operands than Python gives it");
        return static_cast<T*>(call.operands[call.next_operand++]);
    }
};
template <>
struct Argument<void*> {  // memory beside the operands: the workspace, or what is to be prepared
    static void* take(Call& call) { return call.workspace; }
};

template <class Result, class... Parameters>
Result invoke(Result (*function)(Parameters...), Call& call) {
    // Braces, because they take from left to right.
    const std::tuple<std::decay_t<Parameters>...> arguments{Argument<Parameters>::take(call)...};
    return std::apply(function, arguments);
}

struct Function {
    void (*run)(Call&);
    size_t (*workspace)(Call&);
    void (*prepare)(Call&);
    size_t (*prepared_size)(Call&);
};

size_t no_workspace(Call&) { return 0; }

template <auto function>
void run(Call& call) {
    invoke(function, call);
    if (call.next_number != call.from.geometry.size() || call.next_operand != call.operands.size())
        fail(call.from.function + " takes fewer arguments than Python gives it");
}

template <auto function>
size_t size(Call& call) {
    return invoke(function, call);
}

const std::unordered_map<std::string, Function> functions = {
#define NNLITE_FUNCTION(name) {#name, {run<&nnlite::name>, no_workspace, nullptr, nullptr}},
#define NNLITE_FUNCTION_WITH_WORKSPACE(name) \
    {#name, {run<&nnlite::name>, size<&nnlite::name##_workspace>, nullptr, nullptr}},
#define NNLITE_FUNCTION_WITH_PREPARATION(name)                                        \
    {#name "_prepared",                                                               \
     {run<&nnlite::name##_prepared>, size<&nnlite::name##_prepared_workspace>, run<&nnlite::name##_prepare>, \
      size<&nnlite::name##_prepared_size>}},
#include "functions.inc"
};

// ---- running and judging

using Outputs = std::vector<std::vector<unsigned char>>;

constexpr unsigned char unwritten = 0xFF;  // NaN, read as floats

// The weights in the form that the function reads.
std::unique_ptr<Memory> prepare(const Function& function, const Case& c, const Operand& weights, size_t turn) {
    Call measure{c, {}, nullptr};
    auto prepared = std::make_unique<Memory>(function.prepared_size(measure), 4 * (turn % 4));
    std::memset(prepared->data(), unwritten, prepared->size());
    std::vector<unsigned char> plain = weights.input;
    Call call{c, {plain.data()}, prepared->data()};
    const nnlite::FlushDenormals flush;
    function.prepare(call);
    return prepared;
}

Outputs run(const Function& function, const Case& c, size_t turn, std::string& wrong) {
    std::vector<std::unique_ptr<Memory>> memory;
    Call measure{c, {}, nullptr};
    const Memory workspace(function.workspace(measure), turn % 64);
    if (workspace.size()) std::memset(workspace.data(), unwritten, workspace.size());
    Call call{c, {}, workspace.size() ? workspace.data() : nullptr};
    for (const Operand& operand : c.operands) {
        if (operand.kind == Kind::prepared) {
            memory.push_back(prepare(function, c, operand, turn));
            call.operands.push_back(memory.back()->data());
            continue;
        }
        memory.push_back(std::make_unique<Memory>(operand.size(), operand.alignment * ((turn + memory.size()) % 4)));
        unsigned char* data = memory.back()->data();
        if (operand.size()) std::memset(data, unwritten, operand.size());
        if (!operand.input.empty()) std::memcpy(data, operand.input.data(), operand.size());
        call.operands.push_back(operand.kind == Kind::absent ? nullptr : data);
    }
    {
        const nnlite::FlushDenormals flush;  // as the bindings do
        function.run(call);
    }
    Outputs results;
    for (size_t i = 0; i < c.operands.size(); ++i) {
        const unsigned char* data = memory[i]->data();
        results.emplace_back(data, data + (c.operands[i].kind == Kind::prepared ? 0 : memory[i]->size()));
        if (c.operands[i].kind == Kind::input && results[i] != c.operands[i].input)
            wrong += " operand " + std::to_string(i) + " is an input and was written to;";
    }
    return results;
}

void judge(const Case& c, const Outputs& results, std::string& wrong) {
    for (size_t i = 0; i < c.operands.size(); ++i) {
        const Operand& operand = c.operands[i];
        for (size_t at = 0; at < operand.integers.size(); ++at) {
            int32_t actual = 0;  // little-endian: the bytes of smaller types come first
            std::memcpy(&actual, results[i].data() + at * operand.integer_size, operand.integer_size);
            if (actual == operand.integers[at]) continue;
            wrong += " operand " + std::to_string(i) + " differs at " + std::to_string(at) + ";";
            break;
        }
        for (size_t at = 0; at < operand.floats.size(); ++at) {
            float actual;
            std::memcpy(&actual, results[i].data() + at * sizeof actual, sizeof actual);
            const double error = std::fabs(static_cast<double>(actual) - operand.floats[at]);
            if (error <= operand.allowed) continue;  // a NaN is not
            wrong += " operand " + std::to_string(i) + " is off by " + std::to_string(error) + " at " +
                     std::to_string(at) + ", allowed " + std::to_string(operand.allowed) + ";";
            break;
        }
    }
}

std::string check(const Function& function, const Case& c, size_t turn) {
    std::string wrong;
    Outputs before;
    for (const auto& [finest, threads] : {std::pair{false, 1}, {true, 1}, {true, 3}}) {
        nnlite::finest_grain = finest;
        nnlite::set_num_threads(threads);
        Outputs results = run(function, c, turn, wrong);
        judge(c, results, wrong);
        if (threads > 1 && results != before) wrong += " the bits depend on the number of threads;";
        before = std::move(results);
        if (!wrong.empty())
            return wrong + (finest ? " cut into single items," : "") + " " + std::to_string(threads) + " threads";
    }
    return wrong;
}

size_t check_all(const char* path, size_t every) {
    Reader file(path);
    size_t number = 0, checked = 0, wrong = 0;
    while (!file.done()) {
        const Case c = read_case(file);
        if (number++ % every) continue;
        const auto function = functions.find(c.function);
        if (function == functions.end()) fail("functions.inc is not of these cases: " + c.function);
        ++checked;
        const std::string text = check(function->second, c, checked);
        if (text.empty()) continue;
        if (++wrong <= 20) std::printf("%s [%s]:%s\n", c.function.c_str(), c.where.c_str(), text.c_str());
    }
    std::printf("%s: %zu calls of %zu functions, %zu wrong\n", nnlite::kernels().name, checked, functions.size(),
                wrong);
    std::fflush(stdout);
    if (checked == 0) fail("no cases");
    return wrong;
}

}  // namespace

int main(int count, char** words) {
    if (count < 2) fail("check_kernels CASES [EVERY [INSTRUCTION SET...]]");
    const size_t every = count > 2 ? static_cast<size_t>(std::atoi(words[2])) : 1;
    if (every == 0) fail("EVERY must be 1 or more");
    const std::vector<std::string> named(words + (count > 3 ? 3 : count), words + count);
    size_t wrong = 0;
    for (const std::string& isa : named.empty() ? nnlite::usable_isas() : named) {
        nnlite::use_isa(isa);
        wrong += check_all(words[1], every);
    }
    return wrong ? 1 : 0;
}
