#include "bench/runner/programs/progress.hpp"

#include <sys/ioctl.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <iostream>
#include <utility>

namespace nibkv::llm {
namespace {

// Seconds from one line to the next.
constexpr double kBetweenRewritten = 0.1;
constexpr double kBetweenPlain = 30;

constexpr std::string_view kErase = "\r\033[K";

std::size_t columns_of_terminal() {
  winsize size = {};
  const bool is_known = ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col != 0;
  return is_known ? size.ws_col : 80;
}

Progress::Place standard_error(double quiet) {
  Progress::Place place;
  place.quiet = quiet;
  place.is_terminal = ::isatty(STDERR_FILENO) != 0;
  if (place.is_terminal) place.columns = columns_of_terminal();
  place.write = [](std::string_view text) { std::cerr << text << std::flush; };
  place.now = [] { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); };
  return place;
}

std::string speed_text(double tokens_per_second) {
  char text[40];
  std::snprintf(text, sizeof text, tokens_per_second < 10 ? "%.1f tokens/s" : "%.0f tokens/s", tokens_per_second);
  return text;
}

std::string time_text(double seconds) {
  if (!(seconds < 1e9)) return "very long";
  const auto whole = static_cast<std::uint64_t>(std::ceil(seconds));
  if (whole < 100) return std::to_string(whole) + " s";
  const std::uint64_t minutes = (whole + 59) / 60;
  if (minutes < 100) return std::to_string(minutes) + " min";
  return std::to_string(minutes / 60) + " h " + std::to_string(minutes % 60) + " min";
}

}  // namespace

std::string progress_text(std::size_t done, std::size_t all, double seconds) {
  std::string text = std::to_string(done) + " of " + std::to_string(all) + " tokens";
  if (done == 0 || seconds <= 0) return text;
  const double speed = static_cast<double>(done) / seconds;
  text += ", " + speed_text(speed);
  if (done < all) text += ", " + time_text(static_cast<double>(all - done) / speed) + " left";
  return text;
}

Progress::Progress(std::string program, double quiet) : Progress(std::move(program), standard_error(quiet)) {}

Progress::Progress(std::string program, Place place) : program_(std::move(program)), place_(std::move(place)) {
  start();
}

void Progress::start() {
  hide();
  start_ = place_.now();
  next_ = place_.is_terminal ? place_.quiet : kBetweenPlain;
}

bool Progress::is_due(double seconds) {
  if (seconds < next_) return false;
  next_ = seconds + (place_.is_terminal ? kBetweenRewritten : kBetweenPlain);
  return true;
}

void Progress::show(const std::string& what, std::size_t done, std::size_t all) {
  const double seconds = place_.now() - start_;
  if (!is_due(seconds)) return;
  const std::string line = what + ": " + progress_text(done, all, seconds);
  if (!place_.is_terminal) {
    place_.write(program_ + ": " + line + '\n');
    return;
  }
  // A line that reached the last column would go on in the next one, which cannot be rewritten.
  place_.write(std::string(kErase) + line.substr(0, place_.columns - 1));
  shown_ = true;
}

void Progress::hide() {
  if (shown_) place_.write(kErase);
  shown_ = false;
}

}  // namespace nibkv::llm
