#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

namespace nibkv::llm {

/// Gets how many tokens are done, of all.
using TokensDone = std::function<void(std::size_t done, std::size_t all)>;

/// How far a long job is. On a terminal it is one line that is rewritten in place and gone at the end. Elsewhere it is
/// a line every 30 seconds, and nothing for a job that takes less.
class Progress {
 public:
  /// Where the lines go, and when it is.
  struct Place {
    bool is_terminal = false;
    std::size_t columns = 80;  ///< of the terminal
    double quiet = 0;          ///< seconds that a job lasts on a terminal before anything is shown
    std::function<void(std::string_view)> write;
    std::function<double()> now;  ///< in seconds, from any start on
  };

  /// On standard error.
  /// @param program  what lines begin with that stay
  /// @param quiet    seconds, as of Place
  explicit Progress(std::string program, double quiet = 0);
  Progress(std::string program, Place place);
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  ~Progress() { hide(); }

  /// @param what  is being done
  /// @param done  tokens, of `all`; the speed and the time that is left follow from the time since the start
  void show(const std::string& what, std::size_t done, std::size_t all);

  /// Takes the line away, until it is shown again: before anything else is written to the terminal.
  void hide();

  /// Takes the line away, and begins another job.
  void start();

 private:
  bool is_due(double seconds);

  std::string program_;
  Place place_;
  double start_ = 0;
  double next_ = 0;  // seconds after the start when a line is due
  bool shown_ = false;
};

/// "512 of 2,048 tokens, 310 tokens/s, 5 s left".
/// @param seconds  in which `done` of `all` tokens were done
std::string progress_text(std::size_t done, std::size_t all, double seconds);

}  // namespace nibkv::llm
