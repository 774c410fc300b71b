#include "bench/runner/programs/json_reader.hpp"

#include <gtest/gtest.h>

#include <string>

#include "bench/runner/gguf/gguf.hpp"
#include "bench/runner/programs/json.hpp"

namespace nibkv::llm {
namespace {

TEST(JsonReader, ReadsWhatTheWriterWrote) {
  JsonWriter json;
  json.begin_object();
  json.member("name", std::string("a \"b\"\\\n\t\x01 \xC3\xA4"));
  json.member("number", 0.1 + 0.2);
  json.member("count", std::uint64_t{1} << 52);
  json.key("list");
  json.begin_array();
  json.value(-1.5e-300);
  json.value(true);
  json.null();
  json.begin_object();
  json.end_object();
  json.end_array();
  json.end_object();
  const JsonValue read = JsonValue::parse(json.text());
  EXPECT_EQ(read.at("name").text(), "a \"b\"\\\n\t\x01 \xC3\xA4");
  EXPECT_EQ(read.at("number").number(), 0.1 + 0.2);
  EXPECT_EQ(read.at("count").number(), 0x1p52);
  ASSERT_EQ(read.at("list").elements().size(), 4u);
  EXPECT_EQ(read.at("list").elements()[0].number(), -1.5e-300);
}

TEST(JsonReader, ReadsEscapes) {
  EXPECT_EQ(JsonValue::parse(R"("\u0041\/\b\u00e4\ud83d\ude00")").text(), "A/\b\xC3\xA4\xF0\x9F\x98\x80");
  EXPECT_EQ(JsonValue::parse(R"("\ud83dx")").text(), "\xEF\xBF\xBDx");
}

TEST(JsonReader, RefusesWhatIsNoJson) {
  for (const char* wrong : {"", "{", "[1,]", "[1 2]", "{\"a\"}", "{\"a\":}", "{a:1}", "\"a", "\"\\x\"", "\"\\u12\"",
                            "nul", "1 1", "inf", "nan", "-", "\"\n\"", "{\"a\":1,}", "]"}) {
    EXPECT_THROW(JsonValue::parse(wrong), Error) << wrong;
  }
  EXPECT_THROW(JsonValue::parse(std::string(100000, '[')), Error);
}

TEST(JsonReader, RefusesWrongKinds) {
  const JsonValue value = JsonValue::parse(R"({"a": 1, "b": "x"})");
  EXPECT_THROW(value.at("c"), Error);
  EXPECT_THROW(value.at("a").text(), Error);
  EXPECT_THROW(value.at("b").number(), Error);
  EXPECT_THROW(value.elements(), Error);
  EXPECT_THROW(value.at("a").at("b"), Error);
  EXPECT_TRUE(value.has("b"));
  EXPECT_FALSE(value.has("c"));
  EXPECT_FALSE(value.at("a").has("b"));
}

}  // namespace
}  // namespace nibkv::llm
