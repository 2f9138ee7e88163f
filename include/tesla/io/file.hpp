// Files as bytes: read whole, and written so that the old file stays until the new one is complete.
#pragma once

#include <tesla/io/json_text.hpp>

#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace tesla::inline TESLA_TARGET::io {

using Bytes = std::span<const std::uint8_t>;

/// The memory of a contiguous range of numbers.
template <class Range>
Bytes bytes_of(const Range& range) {
  const auto span = std::span(std::data(range), std::size(range));
  static_assert(std::is_trivially_copyable_v<typename decltype(span)::element_type>);
  return {reinterpret_cast<const std::uint8_t*>(span.data()), span.size_bytes()};
}

namespace detail {

/// Throws a FileError that gives errno in words.
template <class... Parts>
[[noreturn]] void raise_errno(const Parts&... parts) {
  const int number = errno;
  raise<FileError>(parts..., ": ", std::strerror(number));
}

/// A path that the system would read as another one, or as none, is refused.
inline const char* checked_path(const std::string& path) {
  if (path.empty()) raise<FileError>("the path of a file is empty");
  if (path.find('\0') != path.npos) raise<FileError>("the path ", detail::quoted(path), " contains a zero byte");
  return path.c_str();
}

/// Repeats a system call that a signal has interrupted.
template <class Call>
auto uninterrupted(const Call& call) {
  auto result = call();
  while (result < 0 && errno == EINTR) result = call();
  return result;
}

/// An open file, closed at the end.
class FileDescriptor {
 public:
  explicit FileDescriptor(int number = -1) : number_(number) {}
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  ~FileDescriptor() {
    if (number_ >= 0) ::close(number_);
  }
  int get() const { return number_; }
  void reset(int number) {
    if (number_ >= 0) ::close(number_);
    number_ = number;
  }
  /// Closes with an answer: some file systems say only here that the disk is full.
  bool close() {
    const int number = number_;
    number_ = -1;
    return ::close(number) == 0 || errno == EINTR;  // an interrupted close has closed
  }

 private:
  int number_;
};

inline std::string folder_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  return slash == path.npos ? "." : path.substr(0, std::max<std::size_t>(slash, 1));
}

/// The path that a path means after its last component has been followed through symbolic links.
inline std::string follow_links(const std::string& path) {
  std::string result = checked_path(path);
  for (int hops = 0; hops < 40; ++hops) {
    char target[4096];
    const ssize_t length = ::readlink(result.c_str(), target, sizeof target);
    if (length < 0) return result;  // no link, or nothing there: what opens it next says what is wrong
    const std::string next(target, static_cast<std::size_t>(length));
    result = next.starts_with('/') ? next : folder_of(result) + "/" + next;
  }
  errno = ELOOP;
  raise_errno("cannot write ", detail::quoted(path));
}

}  // namespace detail

/// What read_file reads at most unless told otherwise: 64 GiB.
inline constexpr std::uint64_t default_file_limit = std::uint64_t{1} << 36;

/// A whole file or pipe. More bytes than `limit` are a FileError, before memory is taken for them.
inline std::vector<std::uint8_t> read_file(const std::string& path, std::uint64_t limit = default_file_limit) {
  const char* name = detail::checked_path(path);
  const detail::FileDescriptor file(detail::uninterrupted([&] { return ::open(name, O_RDONLY | O_CLOEXEC); }));
  if (file.get() < 0) detail::raise_errno("cannot open ", detail::quoted(path));
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) detail::raise_errno("cannot read ", detail::quoted(path));
  const auto refuse = [&](const std::string& found) {
    raise<FileError>("cannot read ", detail::quoted(path), ": it has ", found, " bytes, the limit is ", limit,
                     "; if that many are meant, pass a higher limit");
  };
  if (S_ISCHR(status.st_mode) || S_ISBLK(status.st_mode))
    raise<FileError>("cannot read ", detail::quoted(path), ": it is a device and not a file");
  const auto size = static_cast<std::uint64_t>(S_ISREG(status.st_mode) ? status.st_size : 0);
  if (size > limit) refuse(std::to_string(size));
  std::vector<std::uint8_t> bytes(static_cast<std::size_t>(size));
  std::size_t used = 0;
  // The size is a promise that pipes do not give and that a file being written breaks: only an empty read is the end.
  for (;;) {
    std::uint8_t more[4096];
    const bool full = used == bytes.size();
    std::uint8_t* to = full ? more : bytes.data() + used;
    const std::size_t room = full ? sizeof more : std::min(bytes.size() - used, std::size_t{1} << 30);
    const ssize_t got = detail::uninterrupted([&] { return ::read(file.get(), to, room); });
    if (got < 0) detail::raise_errno("cannot read ", detail::quoted(path), " at byte ", used);
    if (got == 0) break;
    used += static_cast<std::size_t>(got);
    if (used > limit) refuse(text("more than ", limit));
    if (full) bytes.insert(bytes.end(), more, more + got);
  }
  bytes.resize(used);
  return bytes;
}

/// A file that takes its name only when it is complete. Until commit() returns, and for ever if it does not, the old
/// file of that name stays as it was. A symbolic link is followed and kept, permissions are kept; hard links, access
/// lists and extended attributes stay with the old file.
///
///     AtomicFile file("model.bin");
///     file.write(bytes);
///     file.commit();
class AtomicFile {
 public:
  explicit AtomicFile(const std::string& path) : path_(path), target_(detail::follow_links(path)) {
    const std::string folder = detail::folder_of(target_);
    // The folder is synchronised after the renaming. One that may be searched but not listed cannot be opened for it.
    folder_.reset(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (folder_.get() < 0 && errno != EACCES) fail("opening the folder " + detail::quoted(folder));
    existed_ = ::stat(target_.c_str(), &old_) == 0;
    if (!existed_ && errno != ENOENT) fail("looking for an old file");
    if (existed_ && !S_ISREG(old_.st_mode))
      raise<FileError>("cannot write ", detail::quoted(path_), ": there is something that is not a regular file");
    // Renaming asks only the folder, so that a file somebody has made read-only would be lost.
    if (existed_ && ::faccessat(AT_FDCWD, target_.c_str(), W_OK, AT_EACCESS) != 0) fail("replacing the old file");
    for (int attempt = 0; file_.get() < 0; ++attempt) {
      timespec now{};
      ::clock_gettime(CLOCK_REALTIME, &now);
      temporary_ = text(folder, "/.tesla-", ::getpid(), "-", now.tv_sec, "-", now.tv_nsec, "-", attempt, ".tmp");
      file_.reset(::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, existed_ ? 0600 : 0666));
      if (file_.get() < 0 && (errno != EEXIST || attempt == 100)) {
        const std::string name = std::exchange(temporary_, {});
        fail("making the temporary file " + detail::quoted(name));
      }
    }
  }
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  ~AtomicFile() { discard(); }

  /// Adds bytes to the end.
  void write(Bytes bytes) {
    if (temporary_.empty()) raise<UsageError>("AtomicFile: write() to ", detail::quoted(path_), " after its end");
    while (!bytes.empty()) {
      const std::size_t most = std::min(bytes.size(), std::size_t{1} << 30);
      const ssize_t done = detail::uninterrupted([&] { return ::write(file_.get(), bytes.data(), most); });
      if (done <= 0) {
        if (done == 0) errno = EIO;  // no progress and no reason: better an error than a loop without end
        fail(text("writing at byte ", size_));
      }
      size_ += static_cast<std::uint64_t>(done);
      bytes = bytes.subspan(static_cast<std::size_t>(done));
    }
  }

  /// The number of bytes written so far.
  std::uint64_t size() const { return size_; }

  /// Puts the file in the place of the old one, durably.
  void commit() {
    if (temporary_.empty()) raise<UsageError>("AtomicFile: commit() of ", detail::quoted(path_), " after its end");
    if (existed_) {
      // Somebody else's file may stay theirs only if the system lets us; that must not make it impossible to save.
      static_cast<void>(::fchown(file_.get(), old_.st_uid, old_.st_gid) == 0 ||
                        ::fchown(file_.get(), static_cast<uid_t>(-1), old_.st_gid) == 0);
      if (::fchmod(file_.get(), old_.st_mode & 0777) != 0) fail("setting the permissions");
    }
    if (detail::uninterrupted([&] { return ::fsync(file_.get()); }) != 0) fail("fsync");
    if (!file_.close()) fail("closing");
    if (::rename(temporary_.c_str(), target_.c_str()) != 0) fail("renaming " + detail::quoted(temporary_));
    temporary_.clear();
    // Some file systems cannot synchronise a folder; on those there is nothing more to do.
    if (folder_.get() >= 0 && detail::uninterrupted([&] { return ::fsync(folder_.get()); }) != 0 && errno != EINVAL)
      fail("fsync of the folder (the new file is in place, but might not outlive a loss of power)");
  }

 private:
  [[noreturn]] void fail(const std::string& operation) {
    const int number = errno;
    discard();
    errno = number;
    detail::raise_errno("cannot write ", detail::quoted(path_), ": ", operation);
  }
  void discard() {
    if (!temporary_.empty()) ::unlink(temporary_.c_str());
    temporary_.clear();
  }

  std::string path_, target_, temporary_;  // no temporary name: there is no such file, not yet or no more
  detail::FileDescriptor folder_, file_;
  struct stat old_ {};
  bool existed_ = false;
  std::uint64_t size_ = 0;
};

/// Writes chunks, one after the other, as the file `path`; see AtomicFile.
inline void write_file_atomically(const std::string& path, std::span<const Bytes> chunks) {
  AtomicFile file(path);
  for (const Bytes chunk : chunks) file.write(chunk);
  file.commit();
}
inline void write_file_atomically(const std::string& path, std::initializer_list<Bytes> chunks) {
  write_file_atomically(path, std::span(chunks.begin(), chunks.size()));
}

}  // namespace tesla::inline TESLA_TARGET::io
