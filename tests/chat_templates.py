"""Chat templates of the kinds that published students have, each as short as it can be, over the tiny student's tokens.

KINDS[name] is a template; NO_SYSTEM are those without a place for a system text, PUBLISHED those that need no other.
"""

RAISE = "{{ raise_exception('System role not supported') }}"
# a thought is rewritten, an empty one put before an answer without
THINKING = (
    "{%- for m in messages %}{%- if m.role == 'assistant' %}{%- set thought = '' %}{%- set said = m.content %}"
    "{%- if '</think>' in said %}"
    "{%- set thought = said.split('</think>')[0].split('<think>')[-1].strip('\\n') %}"
    "{%- set said = said.split('</think>')[-1].lstrip('\\n') %}{%- endif %}"
    "{{- '<|im_start|>assistant\\n<think>\\n' + thought + '\\n</think>\\n\\n' + said + '<|im_end|>\\n' }}"
    "{%- else %}{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}OPENED{%- endif %}"
)
KINDS = {
    "default system text (Qwen2.5)": (
        "{%- if messages[0]['role'] == 'system' %}"
        "{{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}"
        "{%- else %}{{- '<|im_start|>system\\nYou are helpful.<|im_end|>\\n' }}{%- endif %}"
        "{%- for m in messages %}{%- if m.role != 'system' %}"
        "{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{%- endif %}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
    ),
    "an empty thought before an answer (Qwen3)": THINKING.replace(
        "OPENED",
        "{%- if enable_thinking is defined and enable_thinking is false %}"
        "{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}",
    ),
    "a thought opened in the prompt (Qwen3.5)": THINKING.replace("OPENED", "{{- '<think>\\n' }}"),
    "an empty thought in the prompt (small Qwen3.5)": THINKING.replace(
        "OPENED", "{{- '<think>\\n\\n</think>\\n\\n' }}"
    ),
    "the thought taken out of an answer (R1-Distill)": (
        "{{ bos_token }}{%- for m in messages %}{%- if m.role == 'system' %}{{ m.content }}"
        "{%- elif m.role == 'user' %}{{- '<|im_start|>' + m.content }}"
        "{%- else %}{{- '<|assistant|>' + m.content.split('</think>')[-1] + '<|im_end|>' }}{%- endif %}{%- endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|><think>\\n' }}{% endif %}"
    ),
    "a thought closed in the prompt (DeepSeek V3.1)": (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '<|im_start|>' + m.content }}"
        "{% elif m.role == 'assistant' %}{% set c = m.content %}"
        "{% if '</think>' in c %}{% set c = c.split('</think>', 1)[1] %}{% endif %}"
        "{{ '<|assistant|></think>' + c + '<|im_end|>' }}{% else %}{{ m.content }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|></think>' }}{% endif %}"
    ),
    "no system role (Gemma)": (
        "{{ bos_token }}{% if messages[0]['role'] == 'system' %}" + RAISE + "{% endif %}{% for m in messages %}"
        "{{ '<|im_start|>' + ('model' if m.role == 'assistant' else m.role) + '\\n' + m.content | trim }}"
        "{{ '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>model\\n' }}{% endif %}"
    ),
    "alternating roles alone (Mistral v0.1)": (
        "{{ bos_token }}{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
        "{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}"
        "{% else %}{{ m.content + '<|im_end|>' }}{% endif %}{% endfor %}"
    ),
    "the system text left out in silence (Phi-3)": (
        "{% for m in messages %}{% if m.role == 'user' %}"
        "{{ '<|im_start|>user\\n' + m.content + '<|im_end|>\\n<|im_start|>assistant\\n' }}"
        "{% elif m.role == 'assistant' %}{{ m.content + '<|im_end|>\\n' }}{% endif %}{% endfor %}"
    ),
    "the system text in the last question (Mistral v0.3)": (
        "{% if messages[0]['role'] == 'system' %}{% set s = messages[0]['content'] %}{% set turns = messages[1:] %}"
        "{% else %}{% set turns = messages %}{% endif %}{{ bos_token }}{% for m in turns %}"
        "{% if m.role == 'user' %}{% if loop.last and s is defined %}{{ '[INST] ' + s + '\\n\\n' + m.content }}"
        "{% else %}{{ '[INST] ' + m.content }}{% endif %}{{ '[/INST]' }}"
        "{% else %}{{ ' ' + m.content + '<|im_end|>' }}{% endif %}{% endfor %}"
    ),
    "the day of the call (Llama 3.2)": (
        "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set s = messages[0]['content'] | trim %}"
        "{% set messages = messages[1:] %}{% else %}{% set s = '' %}{% endif %}"
        "{{ '<|im_start|>system\\n\\nToday Date: ' + strftime_now('%d %b %Y') + '\\n\\n' + s + '<|im_end|>' }}"
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n\\n' + m.content | trim + '<|im_end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n\\n' }}{% endif %}"
    ),
    "a line end that the prompt has not (GLM-4)": (
        "[gMASK]<sop>{% for m in messages %}{{ '<|' + m.role + '|>\\n' + m.content }}"
        "{% if m.role == 'assistant' %}<|im_end|>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
    ),
    "an empty thought in one word (GLM-4.5)": (
        "[gMASK]<sop>{% for m in messages %}{% if m.role == 'assistant' %}"
        "{{ '<|assistant|>\\n<think></think>\\n' + m.content + '<|im_end|>' }}"
        "{% else %}{{ '<|' + m.role + '|>\\n' + m.content }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
    ),
    "a blank that the prompt has not (DeepSeek LLM)": (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ 'User: ' + m.content + '\\n\\n' }}"
        "{% elif m.role == 'assistant' %}{{ 'Assistant: ' + m.content + '<|im_end|>' }}"
        "{% else %}{{ m.content + '\\n\\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
    ),
}
NO_SYSTEM = [name for name in KINDS if any(word in name for word in ("Gemma", "Mistral v0.1", "Phi-3"))]
PUBLISHED = [name for name in KINDS if any(word in name for word in ("Qwen2.5", "GLM-4)", "DeepSeek LLM"))]
