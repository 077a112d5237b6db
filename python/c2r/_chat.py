"""Chat templates of Hugging Face models, rendered in jinja2's sandbox as transformers renders them.

A template comes with a model and is code: the sandbox lets it neither call Python nor change what it is given.
"""

import json
import pathlib
import re
import typing
from datetime import datetime

OLDEST_JINJA = (3, 1, 6)  # older ones have known ways out of the sandbox
_SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class ChatError(ValueError):
    """The folder has no chat template, or the template refuses the messages."""


def messages_of(text: str) -> list[dict]:
    """The messages of ``--chat``: a JSON array of objects with role and content, or one message of the user.

    :raises ChatError: if the text begins as such an array but is not one
    """
    if not re.match(r"\s*\[\s*\{", text):
        return [{"role": "user", "content": text}]
    try:
        messages = json.loads(text)
    except ValueError as error:
        raise ChatError(f"--chat begins as a JSON array of messages but is not JSON: {error}") from None
    for message in messages:
        if not (isinstance(message, dict) and isinstance(message.get("role"), str) and "content" in message):
            raise ChatError(f"a message of --chat must have a role and content, but one is {json.dumps(message)[:80]}")
    return messages


def _read(path: pathlib.Path) -> dict:
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ChatError(f"{path}: {error}") from None
    if not isinstance(content, dict):
        raise ChatError(f"{path}: is not a JSON object")
    return content


def _template(folder: pathlib.Path, config: dict) -> str:
    """chat_template.jinja if there is one, as in transformers, else the template of tokenizer_config.json."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        try:
            return file.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise ChatError(f"{file}: {error}") from None
    template = config.get("chat_template")
    if isinstance(template, list):  # several, by name
        named = [one for one in template if isinstance(one, dict) and one.get("name") == "default"]
        template = named[-1].get("template") if named else None
    if not isinstance(template, str):
        raise ChatError(
            f"{folder}: has no chat template (chat_template.jinja, or chat_template in tokenizer_config.json)"
        )
    return template


def _special_tokens(folder: pathlib.Path, config: dict) -> dict:
    """The texts of the special tokens; tokenizer_config.json comes before the older special_tokens_map.json."""
    tokens = _read(folder / "special_tokens_map.json") | {k: v for k, v in config.items() if v is not None}
    texts = {name: tokens[name] for name in _SPECIAL_TOKENS if tokens.get(name) is not None}
    return {name: text.get("content") if isinstance(text, dict) else text for name, text in texts.items()}


def _environment():
    try:
        import jinja2
        import jinja2.ext
        import jinja2.sandbox
    except ModuleNotFoundError:
        raise ChatError("chat templates need jinja2: pip install 'c2r[chat]'") from None
    if tuple(int(part) for part in jinja2.__version__.split(".")[:3]) < OLDEST_JINJA:
        raise ChatError(f"jinja2 is {jinja2.__version__}, but chat templates need 3.1.6: pip install 'c2r[chat]'")

    class Generation(jinja2.ext.Extension):
        """``{% generation %}`` marks the assistant's text for training, and changes nothing."""

        tags: typing.ClassVar = {"generation"}

        def parse(self, parser):
            next(parser.stream)
            return parser.parse_statements(["name:endgeneration"], drop_needle=True)

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment


def render(folder: str | pathlib.Path, messages: list[dict]) -> str:
    """The prompt of a conversation, up to where the assistant answers. It has its special tokens as text.

    :raises ChatError: if there is no template, it is wrong, or it refuses the messages
    """
    folder = pathlib.Path(folder)
    config = _read(folder / "tokenizer_config.json")
    source, environment = _template(folder, config), _environment()

    try:
        return environment.from_string(source).render(
            messages=messages, tools=None, documents=None, add_generation_prompt=True, **_special_tokens(folder, config)
        )
    except Exception as error:  # noqa: BLE001, a template is a program, and may fail as one does
        raise ChatError(f"{folder}: the chat template fails: {str(error) or type(error).__name__}") from None
