// The instruction set this translation unit is compiled for, as a name.
//
// Everything in TESLA lives in the inline namespace tesla::TESLA_TARGET. A user never writes it, but the linker sees
// it: two translation units compiled with different -march flags get different symbols, so each runs its own kernels.
// Without it the linker would keep one copy of every inline function and silently give one unit the other's
// instructions: slow ones, or ones that the processor does not have.
#pragma once

#define TESLA_VERSION_MAJOR 0
#define TESLA_VERSION_MINOR 1
#define TESLA_VERSION_PATCH 0

#define TESLA_STRINGIFY_(x) #x
#define TESLA_STRINGIFY(x) TESLA_STRINGIFY_(x)
#define TESLA_CONCAT_(a, b) a##b
#define TESLA_CONCAT(a, b) TESLA_CONCAT_(a, b)

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#define TESLA_VECTOR_ISA avx512
#elif defined(__AVX512F__)
#define TESLA_VECTOR_ISA avx512f
#elif defined(__AVX2__) && defined(__FMA__)
#define TESLA_VECTOR_ISA avx2
#elif defined(__AVX2__)
#define TESLA_VECTOR_ISA avx2_no_fma
#elif defined(__AVX__)
#define TESLA_VECTOR_ISA avx
#elif defined(__SSE4_2__)
#define TESLA_VECTOR_ISA sse4
#elif defined(__SSE2__)
#define TESLA_VECTOR_ISA sse2
#elif defined(__ARM_NEON)
#define TESLA_VECTOR_ISA neon
#else
#define TESLA_VECTOR_ISA scalar
#endif

#ifdef __FAST_MATH__
#define TESLA_TARGET_MATH _fast
#else
#define TESLA_TARGET_MATH
#endif

#define TESLA_TARGET TESLA_CONCAT(TESLA_VECTOR_ISA, TESLA_TARGET_MATH)

namespace tesla::inline TESLA_TARGET {

inline constexpr const char* version = TESLA_STRINGIFY(TESLA_VERSION_MAJOR) "." TESLA_STRINGIFY(
    TESLA_VERSION_MINOR) "." TESLA_STRINGIFY(TESLA_VERSION_PATCH);

}  // namespace tesla::inline TESLA_TARGET
