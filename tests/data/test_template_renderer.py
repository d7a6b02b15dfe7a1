"""Chat templates are written as transformers writes them."""

import pytest

from scratchlm.data.template_renderer import RefusedError, render

transformers = pytest.importorskip("transformers.utils.chat_template_utils")

TEMPLATES = {  # written here, each with what real ones do: SmolLM, Llama, Mistral, Qwen, Gemma, Zephyr, tools
    "chatml with a default system message": (
        "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
        "{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}{% endif %}"
        "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    "line ends around blocks": (
        "{%- if tools is none %}\n    {% set x = 1 %}\nA\n{%- endif %}\n  {% for m in messages %}\n"
        "    {{- m.content | trim }}\n  {% endfor %}\nend {{ x is defined }}"
    ),
    "a date, a first token and headers": (
        "{{- bos_token }}{% set date = strftime_now('%Y') %}{% for m in messages %}<|h|>{{ m['role'] }}<|/h|>\n\n"
        "{{ m['content'] | trim }}<|eot_id|>{% endfor %}{{ date }}"
    ),
    "turns that must alternate": (
        "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('roles must alternate') }}{% endif %}{% if message['role'] == 'user' %}"
        "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% else %}{{ message['content'] + eos_token }}"
        "{% endif %}{% endfor %}"
    ),
    "reasoning that is cut out": (
        "{% for m in messages %}{% set c = m.content %}{% if m.role == 'assistant' and '</think>' in c %}"
        "{% set c = c.split('</think>')[-1].lstrip('\n') %}{% endif %}{{ m.role }}={{ c }};{% endfor %}"
    ),
    "a namespace, reversed messages and breaks": (
        "{% set ns = namespace(last=-1, n=0) %}{% for m in messages[::-1] %}{% if m.role == 'user' %}"
        "{% set ns.last = loop.index %}{% break %}{% endif %}{% endfor %}{% for m in messages %}"
        "{% if m.role == 'system' %}{% continue %}{% endif %}{% set ns.n = ns.n + 1 %}{% endfor %}"
        "{{ ns.last }}-{{ ns.n }}"
    ),
    "json, filters and tests": (
        "{{ messages | tojson }}\n{{ messages | tojson(indent=2) }}\n{{ messages | map(attribute='role') | join(',') }}"
        "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}{{ messages[0].content is string }}"
    ),
    "macros": (
        "{% macro turn(m) %}<{{ m.role }}>{{ m.content | upper }}{% endmacro %}"
        "{% for m in messages %}{{ turn(m) }}{% endfor %}"
    ),
    "what counts for training": (
        "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% set y = 1 %}"
        "{{ eos_token }}{% endgeneration %}{{ y is defined }}{% else %}{{ m.content }}{% endif %}{% endfor %}"
    ),
    "characters of HTML": "{{ messages | tojson }}{{ '<a & b>' }}{{ messages[-1].content | e }}",
    "a dictionary of its own": "{% set d = dict(a=1, b='x') %}{{ d | tojson }}{{ d.items() | list | length }}",
    "what is not there": "{{ nothing }}{{ messages[0].nothing }}{{ messages[0]['nothing'] or 'none' }}{{ pad_token }}",
}  # fmt: skip
CONVERSATIONS = [
    [("user", "Hello")],
    [("system", "Be brief."), ("user", "Wer bist du? \u00e4\u00f6\u00fc \U0001f600")],
    [("user", "  spaces \n\n"), ("assistant", "<think>\nhm\n</think>\n\nyes"), ("user", "again")],
    [
        ("user", '"quotes" & <b>'),
        ("assistant", "{{ 7 * 7 }} {% raw %}"),
        ("user", "\\n"),
        ("assistant", "ok"),
    ],
    [("user", "one"), ("user", "two")],
    [("user", "")],
]
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


@pytest.mark.parametrize("prompt", [True, False], ids=["for an answer", "complete"])
@pytest.mark.parametrize("name", TEMPLATES)
def test_every_conversation_is_written_as_transformers_writes_it(name, prompt):
    for turns in CONVERSATIONS:
        messages = [{"role": role, "content": text} for role, text in turns]
        settings = {"add_generation_prompt": prompt, **TOKENS}
        try:
            [expected], _ = transformers.render_jinja_template(
                [messages], chat_template=TEMPLATES[name], **settings
            )
        except transformers.jinja2.exceptions.TemplateError:
            with pytest.raises(RefusedError, match="alternate"):
                render(TEMPLATES[name], {"messages": messages, "tools": None, **settings})
            continue
        values = {"messages": messages, "tools": None, "documents": None, **settings}
        assert render(TEMPLATES[name], values) == expected


def test_a_text_longer_than_any_context_is_not_finished():
    with pytest.raises(transformers.jinja2.exceptions.TemplateError, match="more than"):
        render("{% for i in range(99999) %}{{ 'x' * 1000 }}{% endfor %}", {})
