"""Checks check.py itself, on small documents and with a stand-in for the library's header."""

import os
import subprocess
import sys
import tempfile

CHECK = os.path.join(os.path.dirname(os.path.abspath(__file__)), "check.py")
HEADER = "#pragma once\n#include <fstream>\ninline int answer() { return 42; }\n"
failures = 0


def expect(status, message, document):
    global failures
    with tempfile.TemporaryDirectory() as folder:
        os.mkdir(os.path.join(folder, "tesla"))
        with open(os.path.join(folder, "tesla", "tesla.hpp"), "w", encoding="utf-8") as file:
            file.write(HEADER)
        path = os.path.join(folder, "page.md")
        with open(path, "w", encoding="utf-8") as file:
            file.write(document)
        done = subprocess.run([sys.executable, CHECK, path, "--compiler", sys.argv[1], "--include", folder],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != status or message not in done.stdout:
        failures += 1
        print(f"wanted status {status} and \"{message}\" of\n{document}\ngot status {done.returncode} and\n{done.stdout}")


expect(0, " 0 blocks compiled", "No code.\n```sh\nexit 1\n```\n```\nplain\n```\n")
expect(0, " 1 blocks compiled", "```cpp\nint main() { return 0; }\n```\n")
expect(0, " 1 blocks compiled", "1. item\n   ```cpp\n   #include <vector>\n   std::vector<int> v(answer());\n   ```\n")
expect(0, " 0 blocks compiled", "```cpp fragment\nno C++ at all\n```\n")
expect(0, " 1 blocks compiled", "```cpp no-run\nreturn 1;\n```\n")
expect(0, " 2 blocks compiled", "```cpp\nstd::ofstream(\"a\") << 1;\n```\n```cpp\nreturn !std::ifstream(\"a\");\n```\n")
expect(0, " 1 blocks compiled", "```cpp\n// file: own/b.hpp\nint b();\n```\n```cpp\n#include <own/b.hpp>\n```\n")
expect(0, " 1 blocks compiled", "```cpp\n// file: b.cpp\nint b() { return 1; }\n```\n")
expect(0, " 2 blocks compiled", "```cpp\n#include <vector>\nint f() { return 0; }\nint main() { return f(); }\n```\n"
       "```cpp\nint f = 0;\nstd::vector<int> v;\n```\n")
expect(0, " 2 blocks compiled", "```cpp\nint main() {}\n```\n```cpp\nint main() {\n  answer();\n}\n```\n")
expect(1, "page.md:5: fails when it runs (status 3)", "```cpp\nreturn 0;\n```\n```cpp\nreturn 3;\n```\n")
expect(1, "page.md:5:9: error", "```cpp\nreturn 0;\n```\n```cpp\nint x = nothing;\n```\n")
expect(1, "page.md:2: fails when it runs (status 3)", "```cpp\nreturn 3;\n```\n")
expect(1, "page.md:3:9: error", "\n```cpp\nint x = nothing;\n```\n")
expect(1, "page.md:4:9: error", "```cpp\nint x = 1;\n#include <vector>\nint y = nothing;\n```\n")
expect(1, "page.md:2: does not compile", "```cpp no-run\nint main() { return nothing; }\n```\n")
expect(1, "page.md:2: does not compile", "```cpp\n// file: b.cpp\nint b() { return nothing; }\n```\n")
expect(1, "are known, not \"norun\"", "```cpp norun\n```\n")
expect(1, "never closed", "```cpp\nint main() {}\n")
expect(1, "outside the folder", "```cpp\n// file: ../b.hpp\n```\n")

sys.exit(1 if failures else 0)
