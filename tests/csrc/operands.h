// Reading cases.bin (export_cases.py) and memory whose ends are watched.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

[[noreturn]] inline void fail(const std::string& why) {
    std::fprintf(stderr, "check_kernels: %s\n", why.c_str());
    std::exit(2);
}

// ---- memory
//
// An operand starts `offset` bytes after an aligned address: kernels may count on alignment to the element
// and no more. It ends where its allocation ends. With the address sanitizer that is malloc's, else the
// byte after it lies in a page that may not be touched, where a program without sanitizers dies as well.
class Memory {
   public:
    Memory(size_t size, size_t offset) : size_(size) {
#if defined(__SANITIZE_ADDRESS__)
        whole_ = std::malloc(offset + size);
        data_ = static_cast<unsigned char*>(whole_) + offset;
#else
        (void)offset;
        const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
        const size_t pages = (size + page - 1) / page * page;
        length_ = pages + page;
        whole_ = mmap(nullptr, length_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (whole_ == MAP_FAILED) fail("no memory");
        unsigned char* end = static_cast<unsigned char*>(whole_) + pages;
        if (mprotect(end, page, PROT_NONE) != 0) fail("mprotect");
        data_ = end - size;
#endif
    }
#if defined(__SANITIZE_ADDRESS__)
    ~Memory() { std::free(whole_); }
#else
    ~Memory() { munmap(whole_, length_); }
#endif
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;

    unsigned char* data() const { return data_; }
    size_t size() const { return size_; }

   private:
    void* whole_;
    unsigned char* data_;
    size_t size_, length_ = 0;
};

// ---- the file

class Reader {
   public:
    explicit Reader(const char* path) {
        std::FILE* file = std::fopen(path, "rb");
        if (!file) fail(std::string("cannot open ") + path);
        std::fseek(file, 0, SEEK_END);
        bytes_.resize(static_cast<size_t>(std::ftell(file)));
        std::rewind(file);
        if (std::fread(bytes_.data(), 1, bytes_.size(), file) != bytes_.size()) fail("cannot read the cases");
        std::fclose(file);
    }
    bool done() const { return at_ == bytes_.size(); }
    const unsigned char* bytes(size_t count) {
        if (count > bytes_.size() - at_) fail("the cases end too early");
        at_ += count;
        return bytes_.data() + at_ - count;
    }
    template <class T>
    T value() {
        T result;
        std::memcpy(&result, bytes(sizeof(T)), sizeof(T));
        return result;
    }
    template <class T>
    std::vector<T> values(size_t count) {
        std::vector<T> result(count);
        if (count) std::memcpy(result.data(), bytes(count * sizeof(T)), count * sizeof(T));
        return result;
    }
    std::string text() {
        const std::vector<char> letters = values<char>(value<uint32_t>());
        return {letters.begin(), letters.end()};
    }

   private:
    std::vector<unsigned char> bytes_;
    size_t at_ = 0;
};

enum class Kind : uint32_t { absent, input, output, prepared };

struct Operand {
    Kind kind;
    std::vector<unsigned char> input;  // or weights that are to be prepared
    double allowed = 0;
    std::vector<double> floats;  // expected, where the output holds floats
    std::vector<int32_t> integers;
    size_t integer_size = 0;  // in bytes
    size_t alignment = 4;     // of an input with larger elements theirs

    size_t size() const {
        return kind == Kind::output ? floats.size() * sizeof(float) + integers.size() * integer_size : input.size();
    }
};

struct Case {
    std::string function, where;
    std::vector<double> geometry;  // its fields as Python passes them
    std::vector<Operand> operands;
};

inline Case read_case(Reader& from) {
    Case c;
    c.function = from.text();
    c.where = from.text();
    c.geometry = from.values<double>(from.value<uint32_t>());
    const uint32_t count = from.value<uint32_t>();
    for (uint32_t i = 0; i < count; ++i) {
        Operand operand;
        operand.kind = from.value<Kind>();
        if (operand.kind == Kind::input || operand.kind == Kind::prepared) {
            operand.alignment = std::max(operand.alignment, static_cast<size_t>(from.value<uint32_t>()));
            operand.input = from.values<unsigned char>(from.value<uint32_t>());
        } else if (operand.kind == Kind::output) {
            const uint32_t size = from.value<uint32_t>();
            operand.integer_size = from.value<uint32_t>();  // 0: floats
            operand.allowed = from.value<double>();
            if (operand.integer_size == 0)
                operand.floats = from.values<double>(size);
            else
                operand.integers = from.values<int32_t>(size);
        }
        c.operands.push_back(std::move(operand));
    }
    return c;
}
