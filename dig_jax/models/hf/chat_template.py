"""The chat template of folders that we make: ChatML with images, the wire format of Qwen's own."""

from dig_jax.models.api import Family

# Where the conversation has no system turn of its own, some families begin with one.
_SYSTEM = """\
{%- if messages[0].role != 'system' -%}
{{- '<|im_start|>system\\nTEXT<|im_end|>\\n' -}}
{%- endif -%}
"""
_CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' -}}
{%- if message.content is string -%}
{{- message.content -}}
{%- else -%}
{%- for item in message.content -%}
{%- if item.type == 'image' -%}
{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
OBJECT{%- else -%}
{{- item.text -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
"""
_OPEN_THINKING = "{{- '<think>\\n' -}}\n"
_OBJECT = """\
{%- elif item.type == 'object' -%}
{{- 'MARKS' -}}
"""


def chat_template(family: Family, *, thinking: bool = False) -> str:
    """The text of a chat template.

    Args:
      family: its system turn, and what stands for an object.
      thinking: "<think>" is opened, as by the template of Qwen3-VL Thinking.
    """
    system = _SYSTEM.replace("TEXT", family.system) if family.system else ""
    shown = _OBJECT.replace("MARKS", "".join(family.object_marks.values())) if family.object_marks else ""
    template = _CHAT_TEMPLATE.replace("OBJECT", shown)
    return system + template + _OPEN_THINKING * thinking + "{%- endif -%}\n"
