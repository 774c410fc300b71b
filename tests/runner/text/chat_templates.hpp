#pragma once

#include <string_view>

namespace nibkv::llm::test {

/// A model's chat template, or the part of it that writes turns and the system message, and what
/// should be read from it.
struct KnownTemplate {
  const char* model;
  std::string_view name;
  std::string_view system;
  std::string_view text;
};

inline constexpr KnownTemplate kKnownTemplates[] = {
    {"SmolLM2", "chatml", "You are a helpful AI assistant named SmolLM, trained by Hugging Face",
     "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
     "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
     "' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
     "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"},
    {"Qwen2", "chatml", "You are a helpful assistant",
     "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
     "You are a helpful assistant<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + "
     "message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"},
    {"Qwen2.5", "chatml", "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
     R"({%- if tools %}
    {{- '<|im_start|>system\n' }}
    {%- if messages[0]['role'] == 'system' %}
        {{- messages[0]['content'] }}
    {%- else %}
        {{- 'You are Qwen, created by Alibaba Cloud. You are a helpful assistant.' }}
    {%- endif %}
    {{- "\n\n# Tools\n\nYou may call one or more functions to assist with the user query.\n<tools>" }}
    {{- "\n</tools>\n\nFor each function call, return a json object with function name and arguments<|im_end|>\n" }}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}
    {%- else %}
        {{- '<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %})"},
    {"Llama 3", "llama3", "",
     R"({% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + )"
     R"(message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %})"
     R"({% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %})"
     R"({{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }})"},
    {"Gemma", "gemma", "",
     R"({{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }})"
     R"({% endif %}{% for message in messages %}{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + )"
     R"('<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %})"},
    {"Llama 2", "llama2", "",
     R"({% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\n' + system_message + )"
     R"('\n<</SYS>>\n\n' + message['content'] %}{% endif %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }})"
     R"({{ ' '  + content.strip() + ' ' + eos_token }})"},
    {"Mistral v0.2", "mistral", "",
     R"({{- bos_token }}{%- if loop.first and system_message is defined %}{{- ' [INST] ' + system_message + '\n\n' + )"
     R"(message['content'] + ' [/INST]' }}{%- else %}{{- ' [INST] ' + message['content'] + ' [/INST]' }}{%- endif %})"
     R"({{- ' ' + message['content'] + eos_token}})"},
    {"Phi-3", "phi3", "",
     "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') %}{{'<|user|>' + '\n' + "
     "message['content'] + '<|end|>' + '\n' + '<|assistant|>' + '\n'}}{% elif (message['role'] == 'assistant') %}"
     "{{message['content'] + '<|end|>' + '\n'}}{% endif %}{% endfor %}"},
    {"TinyLlama", "zephyr", "",
     "{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\n' + message['content'] + "
     "eos_token "
     "}}\n{% elif message['role'] == 'system' %}\n{{ '<|system|>\n' + message['content'] + eos_token }}\n{% elif "
     "message['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n{% if "
     "loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"},
};

}  // namespace nibkv::llm::test
