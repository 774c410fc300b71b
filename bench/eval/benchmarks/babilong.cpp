#include "bench/eval/benchmarks/babilong.hpp"

#include <algorithm>
#include <iterator>
#include <set>
#include <utility>

#include "bench/runner/programs/arguments.hpp"

namespace nibkv::llm {
namespace {

using Labels = std::set<std::string>;

constexpr std::size_t kAnswer = 20;  // tokens

// What an answer of each task may be. The targets of qa8 may be several, between commas.
Labels labels_of(std::uint64_t task, const std::vector<Sample>& samples) {
  if (task <= 4) return {"bathroom", "bedroom", "garden", "hallway", "kitchen", "office"};
  if (task == 5) return {"bill", "fred", "jeff", "mary", "apple", "football", "milk"};
  if (task == 6 || task == 9) return {"yes", "no"};
  if (task == 7) return {"none", "one", "two", "three"};
  if (task == 8) return {"apple", "football", "milk", "nothing"};
  if (task == 10) return {"yes", "no", "maybe"};
  Labels labels;
  for (const Sample& sample : samples) labels.insert(lower_case(sample.answers.front()));
  return labels;
}

Labels named(const Labels& labels, const std::string& text) {
  Labels found;
  for (const std::string& label : labels) {
    if (text.find(label) != std::string::npos) found.insert(label);
  }
  return found;
}

// What BABILong reads of an answer.
std::string first_sentence(std::string_view said) {
  const std::string lower = lower_case(said);
  return lower.substr(0, std::min({lower.find('.'), lower.find("<context>"), lower.find("<example>")}));
}

double score(const Labels& labels, const Sample& sample, std::string_view said) {
  const Labels asked = named(labels, lower_case(sample.question)), all = named(labels, first_sentence(said));
  Labels answered;
  std::set_difference(all.begin(), all.end(), asked.begin(), asked.end(), std::inserter(answered, answered.end()));
  Labels wanted;
  const std::string target = lower_case(sample.answers.front());
  for (const std::string& part : split_list(target)) wanted.insert(part);
  if (labels.contains(target)) wanted = {target};  // of tasks whose answers have commas
  return answered == wanted ? 1 : 0;
}

// The number of qa1 to qa20; 0 for anything else.
std::uint64_t number_of(std::string_view name) {
  if (!name.starts_with("qa")) return 0;
  const auto number = parse_whole(name.substr(2));
  return number && *number <= 20 ? *number : 0;
}

// Whether an answer can be right: each part of the target is one.
bool is_label(const Labels& labels, const std::string& target) {
  const std::vector<std::string> parts = split_list(target);
  return labels.contains(target) ||
         std::all_of(parts.begin(), parts.end(), [&](const std::string& part) { return labels.contains(part); });
}

std::string trimmed(const std::string& text) {
  constexpr const char* kSpace = " \t\r\n";
  const std::size_t first = text.find_first_not_of(kSpace);
  return first == std::string::npos ? "" : text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

}  // namespace

BabilongPrompt BabilongPrompt::plain() {
  BabilongPrompt prompt;
  prompt.instruction =
      "A few facts are scattered over the text below. Answer the question after the text from them alone. Where one "
      "fact "
      "contradicts another, the later one holds.";
  prompt.post_prompt = "Answer with a word or two, and say no more.";
  prompt.form = "{instruction} {post_prompt}\n\nText:\n{context}\n\nQuestion: {question}\nAnswer:";
  return prompt;
}

BabilongPrompt BabilongPrompt::parse(std::string_view json) {
  const JsonValue file = JsonValue::parse(json);
  const JsonValue& from = file.has("prompt") ? file.at("prompt") : file;
  const auto text = [&from](const char* name, const char* otherwise) {
    return from.has(name) ? from.at(name).text() : std::string(otherwise);
  };
  BabilongPrompt prompt;
  prompt.instruction = from.at("instruction").text();
  prompt.examples = text("examples", "");
  prompt.post_prompt = text("post_prompt", "");
  prompt.form = text(
      "template", "{instruction}\n{examples}\n{post_prompt}\n<context>\n{context}\n</context>\nQuestion: {question}");
  for (const char* name : {"{context}", "{question}"}) {
    if (prompt.form.find(name) == std::string::npos) throw Error(std::string("the template has no ") + name);
  }
  return prompt;
}

std::string BabilongPrompt::write(const std::string& context, const std::string& question) const {
  const std::pair<std::string_view, const std::string&> parts[] = {{"{instruction}", instruction},
                                                                   {"{examples}", examples},
                                                                   {"{post_prompt}", post_prompt},
                                                                   {"{context}", context},
                                                                   {"{question}", question}};
  std::string text;
  for (std::string_view rest = form; !rest.empty();) {
    const auto* const part = std::find_if(std::begin(parts), std::end(parts),
                                          [&rest](const auto& each) { return rest.starts_with(each.first); });
    const bool is_part = part != std::end(parts);
    text += is_part ? std::string_view(part->second) : rest.substr(0, 1);
    rest.remove_prefix(is_part ? part->first.size() : 1);
  }
  return trimmed(text);
}

BenchmarkTask babilong_task(const std::string& name, const std::vector<Sample>& samples) {
  const std::uint64_t number = number_of(name);
  if (number == 0) throw UsageError("--task takes qa1 to qa20 for --babilong, not '" + name + "'");
  const Labels labels = labels_of(number, samples);
  for (const Sample& sample : samples) {
    const std::string& target = sample.answers.front();
    if (!is_label(labels, lower_case(target))) throw Error("the target '" + target + "' is no answer of " + name);
  }
  BenchmarkTask task{name, kAnswer, {}, {}};
  task.score = [labels](const Sample& sample, std::string_view said) { return score(labels, sample, said); };
  task.is_over = [](const Sample&, std::string_view said) { return first_sentence(said).size() != said.size(); };
  return task;
}

std::string babilong_task_of(std::string_view path) {
  while (!path.empty()) {
    const std::size_t slash = path.rfind('/');
    const std::string_view part = slash == std::string_view::npos ? path : path.substr(slash + 1);
    const std::string_view name = part.substr(0, part.find_first_of("_.-"));
    if (number_of(name) != 0) return std::string(name);
    path = path.substr(0, slash == std::string_view::npos ? 0 : slash);
  }
  return "";
}

std::vector<Sample> read_babilong(const std::string& path, std::string_view text, const BabilongPrompt& prompt) {
  std::vector<Sample> samples;
  for_each_value(path, text, [&](const JsonValue& value) {
    Sample sample;
    sample.question = value.at("question").text();
    sample.prompt = prompt.write(value.at("input").text(), sample.question);
    sample.answers = {value.at("target").text()};
    if (sample.answers.front().empty()) throw Error("the target is empty");
    samples.push_back(sample);
  });
  return samples;
}

}  // namespace nibkv::llm
