"""Writes the bytes that the tests of gzip and the fuzzers start from: gzip_bytes.hpp beside this file and the files of
../fuzz/corpus/gzip and ../fuzz/corpus/idx.

    python3 tests/data/make_bytes.py

Python's zlib is the judge: every stream listed as good unpacks there to what is wanted, every bad one is refused.
"""

import struct
import zlib
from pathlib import Path

HERE = Path(__file__).resolve().parent
CORPUS = HERE.parent / "fuzz" / "corpus"


def random_bytes(count, state=1):
    result = bytearray()
    for _ in range(count):
        state = (state * 1103515245 + 12345) % 2**31
        result.append(state >> 16 & 255)
    return bytes(result)


def uneven_bytes():
    """Values of very different frequencies, with gaps between them: a code with repetitions in its lengths."""
    pairs = zip(random_bytes(1500, 3), random_bytes(1500, 4))
    return bytes(65 + (a & b & 47) for a, b in pairs)


def skewed_bytes():
    """Each frequency a little more than the sum of the two before: the longest codes there are for so few values."""
    frequencies = [1, 1]
    while len(frequencies) < 15:
        frequencies.append(frequencies[-1] + frequencies[-2] + 1)
    values = [value for value, count in enumerate(frequencies) for _ in range(count)]
    return bytes(values[i * 1009 % len(values)] for i in range(len(values)))


def periodic_bytes():
    """Matches at all distances from 1 to 40."""
    return b"".join((random_bytes(period, period) * 300)[:300] for period in range(1, 41))


def deflate(data, level=9, strategy=zlib.Z_DEFAULT_STRATEGY):
    packer = zlib.compressobj(level, zlib.DEFLATED, -15, 9, strategy)
    return packer.compress(data) + packer.flush()


def member(data, stream=None, flags=0, fields=b"", method=8):
    header = b"\x1f\x8b" + bytes([method, flags]) + bytes(4) + b"\x02\xff" + fields
    if flags & 2:
        header += struct.pack("<H", zlib.crc32(header) & 0xFFFF)
    stream = deflate(data) if stream is None else stream
    return header + stream + struct.pack("<II", zlib.crc32(data), len(data) & 0xFFFFFFFF)


class Bits:
    """Streams by hand: the lowest bit first, Huffman codes the highest first."""

    def __init__(self):
        self.bits = []

    def number(self, value, count):
        self.bits += [value >> i & 1 for i in range(count)]
        return self

    def code(self, value, count):
        self.bits += [value >> i & 1 for i in reversed(range(count))]
        return self

    def fixed(self, *symbols):
        for symbol in symbols:
            if symbol < 144:
                self.code(0x30 + symbol, 8)
            elif symbol < 256:
                self.code(0x190 + symbol - 144, 9)
            elif symbol < 280:
                self.code(symbol - 256, 7)
            else:
                self.code(0xC0 + symbol - 280, 8)
        return self

    def bytes(self):
        padded = self.bits + [0] * (-len(self.bits) % 8)
        return bytes(sum(bit << i for i, bit in enumerate(padded[at : at + 8])) for at in range(0, len(padded), 8))


ORDER = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15]


def dynamic(plain, symbols, length_codes=257, distance_codes=1):
    """The header of a block: `plain` has the length of each code of the code lengths, `symbols` what is then written
    with them, as (symbol, value of the extra bits)."""
    bits = Bits().number(1, 1).number(2, 2)
    bits.number(length_codes - 257, 5).number(distance_codes - 1, 5).number(15, 4)
    for symbol in ORDER:
        bits.number(plain.get(symbol, 0), 3)
    codes = canonical([plain.get(symbol, 0) for symbol in range(19)])
    for symbol, extra in symbols:
        bits.code(*codes[symbol]).number(extra, {16: 2, 17: 3, 18: 7}.get(symbol, 0))
    return bits


FIXED = Bits().number(1, 1).number(1, 2)


def fixed(*symbols):
    return Bits().number(1, 1).number(1, 2).fixed(*symbols)


# Code lengths of 256 zeros, one for the end of the block, and one for the distances.
PLAIN = {0: 2, 1: 2, 16: 3, 17: 3, 18: 2}
ZEROS = [(18, 127), (18, 118 - 11)]  # 138 + 118


def far():
    """A match of a distance of 32768, which zlib reads but never writes."""
    bits = fixed(*b"TESLA", 0)
    for _ in range(127):
        bits.fixed(285).code(0, 5)  # 258 bytes, distance 1
    return bits.fixed(1, 2).fixed(257).code(29, 5).number(8191, 13).fixed(256).bytes()


def far_data():
    data = b"TESLA" + bytes(1 + 127 * 258) + b"\x01\x02"
    for _ in range(3):
        data += data[-32768 : len(data) - 32767]
    return data


def canonical(lengths):
    """The code of each symbol with a length, as (code, length)."""
    codes, code = {}, 0
    for length in range(1, 16):
        code *= 2
        for symbol, its_length in enumerate(lengths):
            if its_length == length:
                codes[symbol] = (code, length)
                code += 1
    return codes


def long_distances():
    """Codes of up to 15 bits for distances too, and for all that is in a block; (packed, unpacked)."""
    steps = list(range(1, 15)) + [15, 15]
    lengths = [0] * 258
    for symbol, length in zip([*b"abcdefghijklmn", 256, 257], steps):
        lengths[symbol] = length
    plain = {symbol: 4 if symbol < 13 else 5 for symbol in range(19)}
    bits = dynamic(plain, [(length, 0) for length in lengths + steps], 258, 16)
    length_codes, distance_codes = canonical(lengths), canonical(steps)
    data = bytearray()
    for value in random_bytes(300, 5):
        data.append(97 + value % 14)
        bits.code(*length_codes[data[-1]])
    for code, value in enumerate(random_bytes(16, 6)):
        extra_bits = max(code // 2 - 1, 0)
        base = 1 + (code if code < 4 else (2 + code % 2) << extra_bits)
        extra = value % 2**extra_bits
        bits.code(*length_codes[257]).code(*distance_codes[code]).number(extra, extra_bits)
        for _ in range(3):
            data.append(data[-base - extra])
    return bits.code(*length_codes[256]).bytes(), bytes(data)


def many_tables():
    """So many codes of 12 and 13 bits that they fill many secondary tables; (packed, unpacked)."""
    lengths = [0] * 286
    for symbol, length in ((0, 1), (1, 2), (257, 3), (285, 4), (256, 5)):
        lengths[symbol] = length
    for i in range(192):
        lengths[2 + i] = 12 if i % 3 == 0 else 13
    distances = list(range(1, 9)) + [12 if i % 2 == 0 and i < 20 else 13 for i in range(22)]
    plain = {symbol: 4 if symbol < 13 else 5 for symbol in range(19)}
    bits = dynamic(plain, [(length, 0) for length in lengths + distances], 286, 30)
    length_codes, distance_codes = canonical(lengths), canonical(distances)
    data = bytearray(range(194))
    for value in data:
        bits.code(*length_codes[value])
    for _ in range(127):
        bits.code(*length_codes[285]).code(*distance_codes[2])  # 258 bytes, distance 3
        for _ in range(258):
            data.append(data[-3])
    for code, value in enumerate(random_bytes(30, 7)):
        extra_bits = max(code // 2 - 1, 0)
        base = 1 + (code if code < 4 else (2 + code % 2) << extra_bits)
        bits.code(*length_codes[257]).code(*distance_codes[code]).number(value % 2**extra_bits, extra_bits)
        for _ in range(3):
            data.append(data[-base - value % 2**extra_bits])
    return bits.code(*length_codes[256]).bytes(), bytes(data)


TEXT = b"The same bits for the same seed, on every machine: "

GOOD = {
    # name: (packed, unpacked)
    "empty": (member(b""), b""),
    "one_byte": (member(b"T"), b"T"),
    "stored": (member(random_bytes(600), deflate(random_bytes(600), 0)), random_bytes(600)),
    "fixed": (member(TEXT * 3, deflate(TEXT * 3, 9, zlib.Z_FIXED)), TEXT * 3),
    "dynamic": (member(uneven_bytes()), uneven_bytes()),
    "long_codes": (member(skewed_bytes(), deflate(skewed_bytes(), 9, zlib.Z_HUFFMAN_ONLY)), skewed_bytes()),
    "periods": (member(periodic_bytes()), periodic_bytes()),
    "zeros": (member(bytes(300000)), bytes(300000)),
    "long_distances": (member(long_distances()[1], long_distances()[0]), long_distances()[1]),
    "many_tables": (member(many_tables()[1], many_tables()[0]), many_tables()[1]),
    "far": (member(far_data(), far()), far_data()),
    "members": (member(b"one ") + member(b"") + member(b"and two"), b"one and two"),
    "fields": (
        member(b"named", None, 1 + 2 + 4 + 8 + 16, struct.pack("<H", 5) + b"extra" + b"name.txt\0" + b"a comment\0"),
        b"named",
    ),
    "long_field": (member(b"T", None, 4, struct.pack("<H", 300) + bytes(300)), b"T"),
    "empty_blocks": (
        member(b"ab", b"\0\0\0\xff\xff" + b"\0\1\0\xfe\xffa" + b"\0\1\0\xfe\xffb" + b"\1\0\0\xff\xff"),
        b"ab",
    ),
    # A single distance code of one bit, which leaves the other bit without meaning, and none of its kind used.
    "one_code": (member(b"", dynamic(PLAIN, ZEROS + [(1, 0), (1, 0)]).code(0, 1).bytes()), b""),
    "no_distances": (member(b"", dynamic(PLAIN, ZEROS + [(1, 0), (0, 0)]).code(0, 1).bytes()), b""),
}


def damaged(packed, at, value):
    return packed[:at] + bytes([value]) + packed[at + 1 :]


hello = member(b"hello hello")
BAD = {
    # name: (packed, part of the message, the byte it names)
    "magic": (damaged(hello, 1, 0x8C), "not a gzip file", 0),
    "method": (member(b"T", None, method=7), "method 7", 2),
    "flags": (member(b"T", None, 0x20), "reserved", 3),
    "header_check": (damaged(member(b"T", None, 2), 10, 0x55), "header's checksum", 10),
    "crc": (damaged(hello, len(hello) - 8, hello[-8] ^ 1), "checksum", len(hello) - 8),
    "size": (damaged(hello, len(hello) - 4, 10), "size is given as 10, but 11", len(hello) - 4),
    "rubbish_behind": (hello + b"rubbish behind", "no gzip member", len(hello)),
    "zeros_behind": (hello + bytes(16), "no gzip member", len(hello)),
    "block_type": (member(b"", b"\x07" + bytes(8)), "type 3", 10),
    "stored_length": (member(b"ab", b"\1\2\0\xfe\xffab"), "stored block's length", 11),
    "length_286": (member(b"", fixed(65, 286).number(0, 64).bytes()), "without a meaning", 12),
    "distance_30": (member(b"", fixed(65, 257).code(30, 5).number(0, 64).bytes()), "distance code without", 12),
    "too_far": (member(b"", fixed(65, 257).code(1, 5).number(0, 64).bytes()), "distance of 2 bytes back where only 1", 12),
    # The window does not reach into the member before.
    "other_member": (hello + member(b"", fixed(257).code(0, 5).number(0, 64).bytes()), "where only 0", len(hello) + 11),
    "too_many_lengths": (member(b"", dynamic({}, [], 287).number(0, 64).bytes()), "287 length codes", 10),
    "too_many_distances": (member(b"", dynamic({}, [], 257, 31).number(0, 64).bytes()), "31 distance codes", 10),
    "plain_over": (member(b"", dynamic({0: 1, 1: 1, 2: 1}, []).number(0, 64).bytes()), "code lengths in", 10),
    "plain_incomplete": (member(b"", dynamic({0: 1}, []).number(0, 64).bytes()), "incomplete", 10),
    "plain_none": (member(b"", dynamic({}, []).number(0, 64).bytes()), "incomplete", 10),
    "repeat_nothing": (member(b"", dynamic(PLAIN, [(16, 0)]).number(0, 64).bytes()), "first code length", 19),
    "repeat_too_often": (
        member(b"", dynamic(PLAIN, [(18, 127), (18, 127)]).number(0, 64).bytes()),
        "more code lengths than codes",
        21,
    ),
    "no_end": (member(b"", dynamic(PLAIN, [(1, 0), (1, 0)] + [(18, 127), (18, 118 - 11)]).number(0, 64).bytes()), "no code for its end", 10),
    "lengths_over": (
        member(b"", dynamic(PLAIN, [(1, 0), (1, 0), (1, 0), (18, 127), (18, 115 - 11), (1, 0), (1, 0)]).number(0, 64).bytes()),
        "literals and lengths",
        10,
    ),
    "lengths_incomplete": (
        member(b"", dynamic({0: 2, 1: 2, 2: 2, 18: 2}, [(18, 127), (18, 118 - 11), (2, 0), (1, 0)]).number(0, 64).bytes()),
        "incomplete",
        10,
    ),
    "distances_over": (
        member(b"", dynamic(PLAIN, ZEROS + [(1, 0), (1, 0), (1, 0), (1, 0)], 257, 3).number(0, 64).bytes()),
        "distances in",
        10,
    ),
    "distances_incomplete": (
        member(b"", dynamic({0: 2, 1: 2, 2: 2, 18: 2}, ZEROS + [(1, 0), (1, 0), (2, 0)], 257, 2).number(0, 64).bytes()),
        "incomplete",
        10,
    ),
    # The literal has the bit 0 and the end of the block 1; the other way round there is no code at all.
    "no_meaning": (member(b"", dynamic(PLAIN, ZEROS + [(1, 0), (1, 0)]).code(1, 1).number(0, 64).bytes()), "without a meaning", 22),
    "no_distance": (
        member(b"", dynamic(PLAIN, ZEROS + [(1, 0), (1, 0), (1, 0)], 258).code(1, 1).code(1, 1).number(0, 64).bytes()),
        "distance code without",
        22,
    ),
}


def unpack(packed):
    """What zlib makes of it, or None."""
    result = b""
    while packed:
        unpacker = zlib.decompressobj(31)
        try:
            result += unpacker.decompress(packed)
        except zlib.error:
            return None
        if not unpacker.eof:
            return None
        packed = unpacker.unused_data
    return result


def checksum(data):
    """FNV-1a, because a checksum that gzip doesn't use is wanted."""
    value = 14695981039346656037
    for byte in data:
        value = (value ^ byte) * 1099511628211 % 2**64
    return value


def idx(*extents, values=None, kind=8):
    count = 1
    for extent in extents:
        count *= extent
    values = bytes(i * 37 % 256 for i in range(count)) if values is None else values
    return bytes([0, 0, kind, len(extents)]) + b"".join(struct.pack(">I", extent) for extent in extents) + values


IDX = {
    "images": idx(3, 4, 5),
    "labels": idx(10),
    "none": idx(0, 28, 28),
    "one": idx(1, 1, 1),
    "eight_extents": idx(1, 2, 1, 2, 1, 2, 1, 2),
    "nine_extents": idx(1, 1, 1, 1, 1, 1, 1, 1, 1),
    "no_extents": idx(values=b"T"),
    "huge": idx(2**20, 2**20, 2**20, values=bytes(16)),
    "overflow": idx(2**32 - 1, 2**32 - 1, 2**32 - 1, values=bytes(16)),
    "cut_off": idx(3, 4, 5)[:-1],
    "trailing": idx(3, 4, 5) + b"T",
    "floats": idx(2, 2, values=bytes(16), kind=13),
    "packed_images": member(idx(7, 28, 28)),
    "packed_cut_off": member(idx(7, 28, 28))[:-9],
}


def literal(packed):
    lines, line = [], ""
    for byte in packed:
        if len(line) > 110:
            lines.append(line)
            line = ""
        line += f"{byte},"
    return "\n     ".join(lines + [line])


def main():
    for name, (packed, unpacked) in GOOD.items():
        assert unpack(packed) == unpacked, name
    for name, (packed, _, at) in BAD.items():
        assert unpack(packed) is None, name
        assert at < len(packed), name

    with open(HERE / "gzip_bytes.hpp", "w") as file:
        file.write(
            "// Packed bytes for gzip.cpp. Written by make_bytes.py; don't edit.\n#pragma once\n\n"
            "#include <cstddef>\n#include <cstdint>\n#include <string>\n#include <vector>\n\n"
            "// clang-format off\n"
            "// What they unpack to: its size and its FNV-1a checksum.\n"
            "struct GoodBytes {\n  std::string name;\n  std::size_t size;\n  std::uint64_t checksum;\n"
            "  std::vector<std::uint8_t> bytes;\n};\n\n"
            "inline const std::vector<GoodBytes> good_bytes = {\n"
        )
        for name, (packed, unpacked) in GOOD.items():
            file.write(f'    {{"{name}", {len(unpacked)}, {checksum(unpacked):#x},\n    {{{literal(packed)}}}}},\n')
        file.write(
            "};\n\n// What the message says, and which byte it names.\n"
            "struct BadBytes {\n  std::string name, message;\n  std::size_t at;\n  std::vector<std::uint8_t> bytes;\n};\n\n"
            "inline const std::vector<BadBytes> bad_bytes = {\n"
        )
        for name, (packed, message, at) in BAD.items():
            file.write(f'    {{"{name}", "{message}", {at},\n    {{{literal(packed)}}}}},\n')
        file.write("};\n// clang-format on\n")

    for room, entries in (("gzip", {**GOOD, **BAD}), ("idx", IDX)):
        folder = CORPUS / room
        folder.mkdir(parents=True, exist_ok=True)
        wanted = SEEDS if room == "gzip" else IDX
        for name in wanted:
            data = entries[name] if room == "idx" else entries[name][0]
            assert len(data) < 2048, (name, len(data))
            (folder / name).write_bytes(data)


# What a fuzzer does not come upon easily by itself.
SEEDS = [
    "stored", "fixed", "dynamic", "long_codes", "long_distances", "many_tables", "zeros", "far", "members", "fields", "empty_blocks", "one_code",
    "no_distances", "too_far", "lengths_incomplete", "repeat_too_often",
]  # fmt: skip

if __name__ == "__main__":
    main()
