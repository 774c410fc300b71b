#include "bench/runner/programs/json.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <limits>
#include <stdexcept>
#include <string>

#include "bench/runner/gguf/gguf.hpp"

namespace nibkv::llm {
namespace {

std::string alone(const auto& value) {
  JsonWriter json;
  json.value(value);
  std::string text = json.text();
  EXPECT_EQ(text.back(), '\n');
  text.pop_back();
  return text;
}

TEST(Json, NestsObjectsAndArrays) {
  JsonWriter json;
  json.begin_object();
  json.member("name", "x");
  json.key("list");
  json.begin_array();
  json.value(1);
  json.begin_object();
  json.end_object();
  json.null();
  json.end_array();
  json.key("none");
  json.begin_array();
  json.end_array();
  json.member("last", true);
  json.end_object();
  EXPECT_EQ(json.text(),
            "{\n  \"name\": \"x\",\n  \"list\": [\n    1,\n    {},\n    null\n  ],\n  \"none\": [],\n"
            "  \"last\": true\n}\n");
}

TEST(Json, EscapesWhatAStringMayNotHold) {
  EXPECT_EQ(alone("a\"b\\c/\n\t\r\x01\x7f"), R"("a\"b\\c/\n\t\u000d\u0001\u007f")");
  EXPECT_EQ(alone(std::string_view("\0", 1)), R"("\u0000")");
  EXPECT_EQ(alone("caf\xC3\xA9 \xF0\x9F\x99\x82"), "\"caf\xC3\xA9 \xF0\x9F\x99\x82\"");
  EXPECT_EQ(alone(""), "\"\"");
}

TEST(Json, WritesInvalidUtf8AsReplacementCharacters) {
  EXPECT_EQ(alone("a\xFFz"), "\"a\xEF\xBF\xBDz\"");
  EXPECT_EQ(alone("\xED\xA0\x80"), "\"\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\"") << "a surrogate";
}

TEST(Json, KeepsEveryBitOfANumber) {
  for (const double number :
       {0.1, 1.0 / 3, -2.5e-308, 5e-324, std::numeric_limits<double>::max(), 3.2327051234567891}) {
    EXPECT_EQ(std::strtod(alone(number).c_str(), nullptr), number) << alone(number);
  }
  EXPECT_EQ(alone(0.0), "0");
  EXPECT_EQ(alone(1e300), "1e+300");
  EXPECT_EQ(alone(~std::uint64_t{0}), "18446744073709551615");
  EXPECT_EQ(alone(std::numeric_limits<std::int64_t>::min()), "-9223372036854775808");
}

TEST(Json, RefusesNumbersThatAreNotFinite) {
  JsonWriter json;
  json.begin_array();
  EXPECT_THROW(json.value(std::numeric_limits<double>::infinity()), Error);
  EXPECT_THROW(json.value(std::numeric_limits<double>::quiet_NaN()), Error);
  json.end_array();
  EXPECT_EQ(json.text(), "[]\n") << "nothing was written";
}

TEST(Json, RefusesCallsOutOfOrderAndChangesNothing) {
  JsonWriter json;
  EXPECT_THROW(json.text(), std::logic_error) << "nothing was written";
  EXPECT_THROW(json.key("x"), std::logic_error);
  EXPECT_THROW(json.end_array(), std::logic_error);
  json.begin_object();
  EXPECT_THROW(json.value(1), std::logic_error) << "no name";
  EXPECT_THROW(json.begin_array(), std::logic_error) << "no name";
  EXPECT_THROW(json.end_array(), std::logic_error) << "an object is open";
  json.key("x");
  EXPECT_THROW(json.key("y"), std::logic_error) << "no value yet";
  EXPECT_THROW(json.end_object(), std::logic_error) << "no value yet";
  json.value(2);
  EXPECT_THROW(json.text(), std::logic_error) << "still open";
  json.end_object();
  EXPECT_THROW(json.value(1), std::logic_error) << "complete";
  EXPECT_EQ(json.text(), "{\n  \"x\": 2\n}\n");
}

}  // namespace
}  // namespace nibkv::llm
