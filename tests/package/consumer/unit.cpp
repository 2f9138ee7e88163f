// A second unit with the whole library: linking it with the first fails if a definition in a header is not inline.
#include <tesla/tesla.hpp>

const char* version_in_second_unit() { return tesla::version; }
