// Units for several levels of x86-64 in one program: each reports its own vectors and trains.
#include <cmath>
#include <cstdio>
#include <string_view>

#define DECLARE(level)       \
  const char* isa_##level(); \
  float loss_##level();
DECLARE(v2)
DECLARE(v3)
DECLARE(v4)

namespace {
int failures = 0;

void check(const char* level, const char* expected, const char* isa, float loss) {
  std::printf("x86-64-%s: %s, loss %f\n", level, isa, static_cast<double>(loss));
  if (std::string_view(isa) != expected || !std::isfinite(loss)) ++failures;
}
}  // namespace

int main() {
#ifdef HAS_v2
  check("v2", "sse4", isa_v2(), loss_v2());
#endif
#ifdef HAS_v3
  check("v3", "avx2", isa_v3(), loss_v3());
#endif
#ifdef HAS_v4
  check("v4", "avx512", isa_v4(), loss_v4());
#endif
  return failures;
}
