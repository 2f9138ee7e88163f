#include <tesla/io/file.hpp>

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <csignal>

#include "temporary_folder.hpp"

using namespace tesla;
using Catch::Contains;

namespace {

std::string text_of(const std::string& path) {
  const auto bytes = io::read_file(path);
  return {bytes.begin(), bytes.end()};
}

void write_text(const std::string& path, const std::string& text) {
  io::write_file_atomically(path, {io::bytes_of(text)});
}

unsigned mode_of(const std::string& path) {
  struct stat status {};
  REQUIRE(::stat(path.c_str(), &status) == 0);
  return status.st_mode & 07777U;
}

bool is_link(const std::string& path) {
  struct stat status {};
  return ::lstat(path.c_str(), &status) == 0 && S_ISLNK(status.st_mode);
}

/// While it lives, files of this process cannot grow beyond `bytes`: what a full disk looks like from inside.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    handler_ = std::signal(SIGXFSZ, SIG_IGN);
    ::getrlimit(RLIMIT_FSIZE, &old_);
    const rlimit limit{bytes, old_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &old_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit old_{};
  void (*handler_)(int) = SIG_DFL;
};

/// While it lives, this process is not the superuser, to whom permissions mean nothing.
class Unprivileged {
 public:
  Unprivileged() {
    if (superuser_ && ::seteuid(65534) != 0) throw std::runtime_error("seteuid failed");
  }
  Unprivileged(const Unprivileged&) = delete;
  Unprivileged& operator=(const Unprivileged&) = delete;
  ~Unprivileged() {
    if (superuser_ && ::seteuid(0) != 0) std::abort();
  }

 private:
  bool superuser_ = ::geteuid() == 0;
};

/// What an action throws as FileError; "" if nothing.
template <class Action>
std::string error_of(const Action& action) {
  try {
    action();
  } catch (const FileError& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("a file is written in chunks and read back", "[io][file]") {
  const TemporaryFolder folder;
  const std::string path = folder.path("a b.bin");
  std::vector<std::uint8_t> large(300'000);
  for (std::size_t i = 0; i < large.size(); ++i) large[i] = static_cast<std::uint8_t>(i * i >> 3);
  const std::vector<float> numbers{1.5F, -2.0F};

  io::AtomicFile file(path);
  CHECK_FALSE(std::filesystem::exists(path));
  file.write(large);
  file.write({});
  file.write(io::bytes_of(numbers));
  CHECK(file.size() == large.size() + 8);
  CHECK_FALSE(std::filesystem::exists(path));
  file.commit();
  CHECK(folder.names() == std::vector<std::string>{"a b.bin"});

  auto read = io::read_file(path);
  REQUIRE(read.size() == large.size() + 8);
  CHECK(std::memcmp(read.data() + large.size(), numbers.data(), 8) == 0);
  read.resize(large.size());
  CHECK(read == large);
  CHECK_THROWS_AS(file.commit(), UsageError);
  CHECK_THROWS_AS(file.write(large), UsageError);

  io::write_file_atomically(path, {large, io::bytes_of(numbers)});
  CHECK(io::read_file(path).size() == large.size() + 8);
  io::write_file_atomically(path, {});
  CHECK(io::read_file(path).empty());
  CHECK(folder.names().size() == 1);
}

TEST_CASE("a file that is not committed leaves the old one and nothing else", "[io][file]") {
  const TemporaryFolder folder;
  const std::string path = folder.path("a");
  write_text(path, "old");
  {
    io::AtomicFile file(path);
    file.write(io::bytes_of(std::string("new")));
    CHECK(folder.names().size() == 2);
    CHECK(text_of(path) == "old");
  }
  CHECK(text_of(path) == "old");
  CHECK(folder.names().size() == 1);
  { const io::AtomicFile file(folder.path("b")); }
  CHECK(folder.names().size() == 1);
}

TEST_CASE("two writers of one file do not meet", "[io][file]") {
  const TemporaryFolder folder;
  const std::string path = folder.path("a");
  io::AtomicFile first(path), second(path);
  first.write(io::bytes_of(std::string("first")));
  second.write(io::bytes_of(std::string("second")));
  second.commit();
  CHECK(text_of(path) == "second");
  first.commit();
  CHECK(text_of(path) == "first");
  CHECK(folder.names().size() == 1);
}

TEST_CASE("a disk that is full leaves the old file and no temporary one", "[io][file]") {
  const TemporaryFolder folder;
  const std::string path = folder.path("model.bin"), old(20'000, 'o');
  write_text(path, old);
  const std::string next(100'000, 'n');
  for (const rlim_t limit : std::initializer_list<rlim_t>{0, 1, 4096, 99'999}) {
    CAPTURE(limit);
    std::string error;
    {
      const FileSizeLimit full(limit);
      error = error_of([&] { write_text(path, next); });
    }
    CHECK_THAT(error, Contains("cannot write \"" + path + "\"") &&
                          Contains("writing at byte " + std::to_string(limit) + ": ") && Contains("File too large"));
    CHECK(text_of(path) == old);
    CHECK(folder.names() == std::vector<std::string>{"model.bin"});
  }
  // A caller who goes on after the error gets another one, and no half of a file.
  {
    std::string error;
    io::AtomicFile file(path);
    {
      const FileSizeLimit full(10);
      error = error_of([&] { file.write(io::bytes_of(next)); });
    }
    CHECK_FALSE(error.empty());
    CHECK_THROWS_AS(file.write(io::bytes_of(next)), UsageError);
    CHECK_THROWS_AS(file.commit(), UsageError);
  }
  CHECK(text_of(path) == old);
  CHECK(folder.names().size() == 1);
}

TEST_CASE("permissions are kept, and obeyed", "[io][file]") {
  const TemporaryFolder folder;
  const std::string path = folder.path("a");
  const mode_t mask = ::umask(027);
  write_text(path, "1");
  ::umask(mask);
  CHECK(mode_of(path) == 0640);
  REQUIRE(::chmod(path.c_str(), 0604) == 0);
  write_text(path, "2");
  CHECK(mode_of(path) == 0604);
  CHECK(text_of(path) == "2");
  {
    io::AtomicFile file(path);  // nobody reads what will be in a private file while it is being written
    for (const std::string& name : folder.names()) {
      if (name != "a") CHECK(mode_of(folder.path(name)) == 0600);
    }
  }

  std::string read_only, no_folder_write, unreadable;
  REQUIRE(::chmod(folder.path().c_str(), 0777) == 0);
  REQUIRE(::chmod(path.c_str(), 0444) == 0);
  {
    const Unprivileged user;
    read_only = error_of([&] { write_text(path, "3"); });
  }
  CHECK_THAT(read_only, Contains(path) && Contains("replacing the old file: Permission denied"));
  REQUIRE(::chmod(path.c_str(), 0666) == 0);
  REQUIRE(::chmod(folder.path().c_str(), 0555) == 0);
  {
    const Unprivileged user;
    no_folder_write = error_of([&] { write_text(path, "4"); });
  }
  CHECK_THAT(no_folder_write, Contains(path) && Contains("making the temporary file") && Contains("Permission denied"));
  REQUIRE(::chmod(path.c_str(), 0) == 0);
  {
    const Unprivileged user;
    unreadable = error_of([&] { io::read_file(path); });
  }
  CHECK_THAT(unreadable, Contains("cannot open \"" + path + "\": Permission denied"));
  REQUIRE(::chmod(path.c_str(), 0600) == 0);
  REQUIRE(::chmod(folder.path().c_str(), 0700) == 0);
  CHECK(text_of(path) == "2");
  CHECK(folder.names().size() == 1);
}

TEST_CASE("a folder that cannot be listed can be written to", "[io][file]") {
  const TemporaryFolder folder;
  REQUIRE(::chmod(folder.path().c_str(), 0333) == 0);
  {
    const Unprivileged user;
    write_text(folder.path("a"), "1");
  }
  REQUIRE(::chmod(folder.path().c_str(), 0700) == 0);
  CHECK(text_of(folder.path("a")) == "1");
  CHECK(folder.names().size() == 1);
}

TEST_CASE("a symbolic link is followed and kept", "[io][file]") {
  const TemporaryFolder folder;
  REQUIRE(::mkdir(folder.path("deep").c_str(), 0700) == 0);
  const std::string target = folder.path("deep/target"), link = folder.path("link"), second = folder.path("second");
  write_text(target, "old");
  REQUIRE(::symlink("deep/target", link.c_str()) == 0);
  REQUIRE(::symlink(link.c_str(), second.c_str()) == 0);
  write_text(second, "new");
  CHECK(text_of(target) == "new");
  CHECK(is_link(link));
  CHECK(is_link(second));
  CHECK(folder.names() == std::vector<std::string>{"deep", "link", "second"});

  // A link to a file that is not there yet makes the file.
  const std::string dangling = folder.path("dangling");
  REQUIRE(::symlink("deep/other", dangling.c_str()) == 0);
  write_text(dangling, "made");
  CHECK(is_link(dangling));
  CHECK(text_of(folder.path("deep/other")) == "made");

  const std::string loop = folder.path("loop");
  REQUIRE(::symlink("loop", loop.c_str()) == 0);
  CHECK_THROWS_AS(write_text(loop, "x"), FileError);
  CHECK_THROWS_WITH(write_text(loop, "x"), Contains(loop) && Contains("symbolic links"));
  CHECK(is_link(loop));
}

TEST_CASE("what cannot be written says why", "[io][file]") {
  const TemporaryFolder folder;
  const std::string missing = folder.path("missing/a");
  CHECK_THROWS_AS(write_text(missing, "x"), FileError);
  CHECK_THROWS_WITH(write_text(missing, "x"),
                    Contains("\"" + missing + "\": opening the folder") && Contains("No such file or directory"));
  write_text(folder.path("a"), "file");
  CHECK_THROWS_WITH(write_text(folder.path("a/b"), "x"), Contains("Not a directory"));
  CHECK_THROWS_WITH(write_text(folder.path(), "x"), Contains("not a regular file"));
  CHECK_THROWS_WITH(write_text(folder.path("a") + "/", "x"), Contains("cannot write"));
  CHECK_THROWS_WITH(write_text(folder.path("new") + "/", "x"), Contains("cannot write"));
  CHECK_THROWS_WITH(write_text(folder.path(std::string(300, 'x')), "x"), Contains("File name too long"));
  CHECK_THROWS_WITH(write_text("", "x"), Contains("path of a file is empty"));
  CHECK_THROWS_WITH(write_text(folder.path(std::string("z\0z", 3)), "x"), Contains("zero byte"));
  // Renaming would put a file in the place of a pipe or a device.
  const std::string fifo = folder.path("fifo");
  REQUIRE(::mkfifo(fifo.c_str(), 0600) == 0);
  CHECK_THROWS_WITH(write_text(fifo, "x"), Contains("not a regular file"));
  CHECK(folder.names() == std::vector<std::string>{"a", "fifo"});
  CHECK(text_of(folder.path("a")) == "file");
}

TEST_CASE("read_file: limits, pipes and errors", "[io][file]") {
  const TemporaryFolder folder;
  const std::string path = folder.path("a");
  write_text(path, "12345678");
  CHECK(io::read_file(path, 8).size() == 8);
  CHECK_THROWS_AS(io::read_file(path, 7), FileError);
  CHECK_THROWS_WITH(io::read_file(path, 7), Contains("\"" + path + "\": it has 8 bytes, the limit is 7"));
  CHECK_THROWS_WITH(io::read_file(folder.path("b")),
                    Contains("cannot open \"" + folder.path("b") + "\": No such file"));
  CHECK_THROWS_WITH(io::read_file(folder.path()), Contains("cannot read") && Contains("Is a directory"));
  CHECK_THROWS_WITH(io::read_file(""), Contains("path of a file is empty"));
  CHECK_THROWS_WITH(io::read_file(std::string("/dev/null\0", 10)), Contains("zero byte"));
  CHECK_THROWS_WITH(io::read_file("/dev/zero"), Contains("device"));
  CHECK_FALSE(io::read_file("/proc/self/status").empty());  // says that its size is 0

  // A file that claims 2^60 bytes takes no memory.
  const int sparse = ::open(folder.path("sparse").c_str(), O_WRONLY | O_CREAT, 0600);
  const bool sparse_made = ::ftruncate(sparse, off_t{1} << 42) == 0;
  ::close(sparse);
  if (sparse_made) CHECK_THROWS_WITH(io::read_file(folder.path("sparse")), Contains("it has 4398046511104 bytes"));

  for (const std::size_t size : std::initializer_list<std::size_t>{0, 1, 4095, 4096, 4097, 20'000}) {
    CAPTURE(size);
    for (const bool limited : {false, true}) {
      int ends[2];
      REQUIRE(::pipe(ends) == 0);
      const std::string sent(size, 'p');
      REQUIRE(::write(ends[1], sent.data(), size) == static_cast<ssize_t>(size));
      ::close(ends[1]);
      const std::string name = "/dev/fd/" + std::to_string(ends[0]);
      if (limited && size > 0) {
        CHECK_THROWS_WITH(io::read_file(name, size - 1), Contains("it has more than " + std::to_string(size - 1)));
      } else {
        CHECK(io::read_file(name, size) == bytes_of_text(sent));
      }
      ::close(ends[0]);
    }
  }
}
