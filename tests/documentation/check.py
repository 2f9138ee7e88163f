"""Compiles and runs the C++ blocks of a Markdown document, in order, in one temporary folder.

    ```cpp             compiled and run; without `int main` it is the body of one, after #include <tesla/tesla.hpp>
    ```cpp no-run      compiled only
    ```cpp fragment    skipped

A block that begins with `// file: name` is written to that name as it stands, for later blocks to include; it is
compiled if it is a source file, and run if it has an `int main`. Blocks in other languages are skipped.
"""

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile

FENCE = re.compile(r"^( {0,3})(```+|~~~+)\s*(.*?)\s*$")
FILE = re.compile(r"^// file: (\S+)\s*$")
MAIN = re.compile(r"^\s*(auto|int)\s+main\s*\(", re.MULTILINE)
INCLUDE = re.compile(r"^\s*#\s*include\b")
SOURCES = (".cpp", ".cc", ".cxx")


class BadDocument(Exception):
    pass


def blocks(text):
    """Yields (line of the first line of code, words after the fence, lines) of each fenced block."""
    fence = None
    for number, line in enumerate(text.splitlines(), 1):
        match = FENCE.match(line)
        if fence is None:
            if match:
                indent, fence, info = match.groups()
                first, lines = number + 1, []
        elif match and match[2].startswith(fence) and not match[3]:
            yield first, info.split(), lines
            fence = None
        else:
            lines.append(line.removeprefix(indent))
    if fence is not None:
        raise BadDocument(f"line {first - 1}: this block is never closed")


def program(first, lines, document):
    """What is compiled for a block: error messages name the document's own lines."""

    def numbered(wanted):
        result, expected = [], None
        for number, line in enumerate(lines, first):
            if bool(INCLUDE.match(line)) == wanted or wanted is None:
                if number != expected:
                    result.append(f'#line {number} "{document}"')
                result.append(line)
                expected = number + 1
        return result

    if MAIN.search("\n".join(lines)):
        return numbered(None)
    return ["#include <tesla/tesla.hpp>", *numbered(True), "int main() {", *numbered(False), "}"]


def check(document, compiler, flags):
    """Returns (number of blocks compiled, messages)."""
    compiled, messages = 0, []
    with open(document, encoding="utf-8") as file:
        text = file.read()
    with tempfile.TemporaryDirectory() as folder:

        def succeeds(what, first, command):
            done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, errors="replace", check=False)
            if done.returncode != 0:
                messages.append(f"{document}:{first}: {what} (status {done.returncode})\n{done.stdout}")
            return done.returncode == 0

        for first, info, lines in blocks(text):
            if not info or info[0] != "cpp" or info[1:] == ["fragment"]:
                continue
            if info[1:] not in ([], ["no-run"]):
                raise BadDocument(f"line {first - 1}: after ```cpp only \"no-run\" and \"fragment\" are known, "
                                  f"not \"{' '.join(info[1:])}\"")
            runs, name = not info[1:], f"line_{first}.cpp"
            named = FILE.match(lines[0]) if lines else None
            if named:
                name = named[1]
                if os.path.isabs(name) or ".." in name.split("/"):
                    raise BadDocument(f"line {first}: a file outside the folder: {name}")
                source, has_main = lines, bool(MAIN.search("\n".join(lines)))
                runs = runs and has_main
            else:
                source, has_main = program(first, lines, os.path.abspath(document)), True
            path = os.path.join(folder, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w", encoding="utf-8") as file:
                file.write("\n".join(source) + "\n")
            if not name.endswith(SOURCES):
                continue

            compiled += 1
            binary = os.path.join(folder, f"block_{first}")
            only = [] if has_main else ["-c"]
            if succeeds("does not compile", first, [compiler, *flags, "-I.", *only, name, "-o", binary]) and runs:
                succeeds("fails when it runs", first, [binary])
    return compiled, messages


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("document")
    parser.add_argument("--compiler", default="g++")
    parser.add_argument("--flags", default="-std=c++20")
    parser.add_argument("--include", default="", help="folders with headers, separated by semicolons")
    options = parser.parse_args()
    flags = shlex.split(options.flags)
    flags += [f"-I{folder}" for folder in options.include.split(";") if folder]
    try:
        compiled, messages = check(options.document, options.compiler, flags)
    except BadDocument as problem:
        sys.exit(f"{options.document}: {problem}")
    print(*messages, f"{options.document}: {compiled} blocks compiled, {len(messages)} failed", sep="\n")
    sys.exit(1 if messages else 0)


if __name__ == "__main__":
    main()
