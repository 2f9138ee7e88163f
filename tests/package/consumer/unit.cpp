// A second unit with the whole library: linking it with the first fails if a definition in a header is not inline.
#include <tesla/tesla.hpp>
#ifdef HAS_EIGEN
#include <tesla/tensor/eigen.hpp>
#endif
#ifdef HAS_XTENSOR
#include <tesla/tensor/xtensor.hpp>
#endif

const char* version_in_second_unit() { return tesla::version; }
