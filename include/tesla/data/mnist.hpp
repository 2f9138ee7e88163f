// MNIST, or any set published in its form (Fashion-MNIST, KMNIST, ...), from a folder with its four files.
#pragma once

#include <tesla/data/idx.hpp>

namespace tesla::inline TESLA_TARGET::data {

namespace detail {

/// The first of a file's usual names that exists in the folder: ("train", "images", 3) for the training images.
inline std::string find_idx(const std::string& folder, const char* part, const char* kind, int rank) {
  std::string looked_for;
  for (const char* separator : {"-", "."}) {
    for (const char* ending : {"", ".gz"}) {
      const std::string name = text(part, "-", kind, separator, "idx", rank, "-ubyte", ending);
      const std::string path = text(folder, folder.empty() || folder.back() == '/' ? "" : "/", name);
      looked_for += looked_for.empty() ? name : ", " + name;
      std::FILE* file = std::fopen(path.c_str(), "rb");
      if (file == nullptr) {
        if (errno == ENOENT || errno == ENOTDIR) continue;
        return path;  // it is there, and reading it will say what is wrong with it
      }
      // Archives unpacked by some programs hold the file in a folder of its name; such a folder is passed over.
      const bool folder_of_that_name = std::fgetc(file) == EOF && std::ferror(file) != 0;
      std::fclose(file);
      if (!folder_of_that_name) return path;
    }
  }
  raise<FileError>("mnist: no ", kind, " of the ", part, " part in the folder '", folder, "'; looked there for ",
                   looked_for, "; give the folder that holds the four files, or use data::digits(), which needs none");
}

}  // namespace detail

/// Reads MNIST: x {60000, 784} and {10000, 784} with values from 0 to 1, y {60000} and {10000}.
inline Split<> mnist(const std::string& folder) {
  // All four are looked for first: reading takes a while, and a missing file should not show only then.
  const std::string train_x = detail::find_idx(folder, "train", "images", 3);
  const std::string train_y = detail::find_idx(folder, "train", "labels", 1);
  const std::string test_x = detail::find_idx(folder, "t10k", "images", 3);
  const std::string test_y = detail::find_idx(folder, "t10k", "labels", 1);
  Split<> split{read_idx(train_x, train_y), read_idx(test_x, test_y)};
  if (split.train.x().shape().back() != split.test.x().shape().back())
    raise<FormatError>(train_x, " has images of ", split.train.x().shape().back(), " pixels, ", test_x, " of ",
                       split.test.x().shape().back(), "; the files do not belong together");
  return split;
}

}  // namespace tesla::inline TESLA_TARGET::data
