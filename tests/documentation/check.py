"""Compiles and runs the C++ blocks of a Markdown document, in order, in one temporary folder.

    ```cpp             compiled and run; without `int main` it is the body of one, after #include <tesla/tesla.hpp>
    ```cpp no-run      compiled only
    ```cpp fragment    skipped

Blocks are compiled together, each in a namespace of its own, because most of the time goes into what they share; if
that fails, each by itself, to say which one is wrong.

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


def numbered(first, lines, document, wanted):
    """The lines that are includes, or those that are not, so that error messages name the document's own lines."""
    result, expected = [], None
    for number, line in enumerate(lines, first):
        if wanted is None or bool(INCLUDE.match(line)) == wanted:
            if number != expected:
                result.append(f'#line {number} "{document}"')
            result.append(line)
            expected = number + 1
    return result


def program(first, lines, document):
    """What is compiled for a block by itself."""
    if MAIN.search("\n".join(lines)):
        return numbered(first, lines, document, None)
    return ["#include <tesla/tesla.hpp>", *numbered(first, lines, document, True), "int main() {",
            *numbered(first, lines, document, False), "}"]


def together(parts, document):
    """One program of several blocks: its argument says which of them is run."""
    includes, bodies, cases = ["#include <tesla/tesla.hpp>"], [], []
    for first, lines in parts:
        includes += numbered(first, lines, document, True)
        body = numbered(first, lines, document, False)
        if MAIN.search("\n".join(lines)):
            body = [MAIN.sub(r"\1 run(", line) for line in body]
            end = max(i for i, line in enumerate(body) if "}" in line)  # main needs no return, others do
            body[end] = "return 0; }".join(body[end].rsplit("}", 1))
        else:
            body = ["inline int run() {", *body, "return 0; }"]
        bodies += [f"namespace block_{first} {{", *body, "}"]
        cases.append(f"case {first}: return block_{first}::run();")
    return [*includes, "#include <cstdlib>", *bodies, "int main(int, char** line) {",
            "switch (std::atoi(line[1])) {", *cases, "}", "return 1; }"]


def read(text):
    """Returns the blocks of C++ as (line, lines, name of a file or None, whether it has a main, whether it is run)."""
    found = []
    for first, info, lines in blocks(text):
        if not info or info[0] != "cpp" or info[1:] == ["fragment"]:
            continue
        if info[1:] not in ([], ["no-run"]):
            raise BadDocument(f"line {first - 1}: after ```cpp only \"no-run\" and \"fragment\" are known, "
                              f"not \"{' '.join(info[1:])}\"")
        named = FILE.match(lines[0]) if lines else None
        if named and (os.path.isabs(named[1]) or ".." in named[1].split("/")):
            raise BadDocument(f"line {first}: a file outside the folder: {named[1]}")
        has_main = not named or bool(MAIN.search("\n".join(lines)))
        found.append((first, lines, named and named[1], has_main, has_main and not info[1:]))
    return found


def check(document, compiler, flags):
    """Returns (number of blocks compiled, messages)."""
    compiled, messages = 0, []
    with open(document, encoding="utf-8") as file:
        found = read(file.read())
    path = os.path.abspath(document)
    with tempfile.TemporaryDirectory() as folder:

        def write(name, source):
            name = os.path.join(folder, name)
            os.makedirs(os.path.dirname(name), exist_ok=True)
            with open(name, "w", encoding="utf-8") as file:
                file.write("\n".join(source) + "\n")

        def output_of(command):
            done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, errors="replace", check=False)
            return done.returncode, done.stdout

        def succeeds(what, first, command):
            status, output = output_of(command)
            if status != 0:
                messages.append(f"{document}:{first}: {what} (status {status})\n{output}")
            return status == 0

        for _, lines, name, _, _ in found:
            if name:
                write(name, lines)
        parts = [(first, lines) for first, lines, name, _, _ in found if not name]
        binary, all_in_one = os.path.join(folder, "all_blocks"), False
        if len(parts) > 1:
            write("all_blocks.cpp", together(parts, path))
            all_in_one = output_of([compiler, *flags, "-I.", "all_blocks.cpp", "-o", binary])[0] == 0
        for first, lines, name, has_main, runs in found:
            if name and not name.endswith(SOURCES):
                continue
            compiled += 1
            command = [binary, str(first)]
            if name or not all_in_one:
                source, command = name or f"line_{first}.cpp", [os.path.join(folder, f"block_{first}")]
                if not name:
                    write(source, program(first, lines, path))
                only = [] if has_main else ["-c"]
                if not succeeds("does not compile", first, [compiler, *flags, "-I.", *only, source, "-o", *command]):
                    continue
            if runs:
                succeeds("fails when it runs", first, command)
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
