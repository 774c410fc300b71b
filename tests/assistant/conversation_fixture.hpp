#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "bench/assistant/conversation.hpp"

namespace nibkv::llm {

inline constexpr const char* kFacts =
    "It was a fine morning, and they walked along the river.\nThe code for willow is 90717.\nShe said nothing.\n"
    "What is the code for willow? ";

/// A folder that is deleted after the test.
class Folder {
 public:
  Folder() {
    path_ = (std::filesystem::temp_directory_path() / "nibkv-conversation-XXXXXX").string();
    if (::mkdtemp(path_.data()) == nullptr) throw std::runtime_error("cannot create " + path_);
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

/// The tiny model, and conversations over stores of any size.
class ConversationTest : public testing::Test {
 protected:
  struct Talk {
    std::unique_ptr<TileStore> store;
    std::unique_ptr<Conversation> conversation;
  };

  Talk talk(const std::string& policy, std::uint32_t tokens, const ConversationOptions& options) {
    return talk(policy, tokens, options, chat_);
  }

  Talk talk(const std::string& policy, std::uint32_t tokens, const ConversationOptions& options, const Chat& chat,
            std::uint32_t reach = 0) {
    StoreOptions store;
    store.reach = reach;
    store.policy = policy;
    store.tokens = tokens;
    store.workers = pool_.workers();
    Talk made;
    made.store = std::make_unique<TileStore>(model_.config(), store);
    made.conversation = std::make_unique<Conversation>(model_, tokenizer_, chat, *made.store, options);
    return made;
  }

  static ConversationOptions greedy(std::size_t max_tokens) {
    ConversationOptions options;
    options.sampler.temperature = 0;
    options.max_tokens = max_tokens;
    return options;
  }

  static std::string ask(Talk& talk, const std::string& message, Ending ending = Ending::kCut) {
    std::string answer;
    EXPECT_EQ(talk.conversation->answer(message, [&](std::string_view text) { answer += text; }), ending);
    return answer;
  }

  Gguf file_ = Gguf::open(NIBKV_TINY_MODEL);
  Tokenizer tokenizer_ = Tokenizer::from(file_);
  Chat chat_ = Chat::from(file_, tokenizer_);
  ThreadPool pool_{2};
  Model model_{file_, pool_};
};

/// With a limit of its own, and what the conversation says.
class TalkativeConversationTest : public ConversationTest {
 protected:
  ConversationOptions greedy(std::size_t max_tokens, std::size_t limit = 0) {
    ConversationOptions options = ConversationTest::greedy(max_tokens);
    options.limit = limit;
    options.say = [this](const std::string& line) { said_.push_back(line); };
    return options;
  }

  std::vector<std::string> said_;
};

}  // namespace nibkv::llm
