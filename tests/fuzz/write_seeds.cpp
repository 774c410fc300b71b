// nibkv-fuzz-seeds FOLDER: writes the seeds of each fuzzer to FOLDER/TARGET/seed-N.
#include <filesystem>
#include <fstream>
#include <iostream>

#include "tests/fuzz/targets.hpp"

int main(int count, char** words) {
  if (count != 2) {
    std::cerr << "nibkv-fuzz-seeds FOLDER\n";
    return 2;
  }
  for (const nibkv::fuzz::Target& target : nibkv::fuzz::targets()) {
    const std::filesystem::path folder = std::filesystem::path(words[1]) / target.name;
    std::filesystem::create_directories(folder);
    int number = 0;
    for (const nibkv::fuzz::Input& input : target.seeds()) {
      std::ofstream file(folder / ("seed-" + std::to_string(number++)), std::ios::binary);
      file.write(reinterpret_cast<const char*>(input.data()), static_cast<std::streamsize>(input.size()));
      if (!file.flush()) return 1;
    }
  }
  return 0;
}
