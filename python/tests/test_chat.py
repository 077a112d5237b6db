"""Chat templates: the prompts of ``python -m c2r generate --chat`` are those of transformers' apply_chat_template."""

import json
import pathlib
import subprocess
import sys

import pytest
from families import random_model

import c2r
from c2r import _chat

transformers = pytest.importorskip("transformers", minversion="5.23")
jinja2 = pytest.importorskip("jinja2", minversion="3.1.6")

PROGRAM = pathlib.Path(c2r.__file__).with_name("c2r")
CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% else %}{{ message['content'] + eos_token }}{% endif %}{% endfor %}"
)
NEW_FEATURES = """{%- set ns = namespace(last=none) -%}
{%- for message in messages %}
    {%- if message.role == 'system' %}
        {%- continue %}
    {%- endif %}
    {%- set ns.last = message.role %}
    {% generation %}{{ message | tojson }}{% endgeneration %}
{%- endfor %}
{{ ns.last }} {{ eos_token }} {{ tools is none }} {{ messages | length }}"""
TEMPLATES = {"chatml": CHATML, "mistral": MISTRAL, "new_features": NEW_FEATURES}
CHATS = {
    "one": [{"role": "user", "content": "Hello, <b>&'wörld'</b>!"}],
    "three": [
        {"role": "user", "content": "Hi"}, {"role": "assistant", "content": " there "},
        {"role": "user", "content": "<|im_end|>?"},
    ],
    "system": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}],
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model whose byte-level tokenizer knows the tokens of the templates."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    wrapped = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="<|im_end|>", extra_special_tokens=["<|im_start|>"]
    )
    path = tmp_path_factory.mktemp("chat")
    wrapped.save_pretrained(path)
    model = random_model("mixtral")
    model.resize_token_embeddings(len(wrapped))
    model.save_pretrained(path)
    return path


def write_template(folder, template, is_file):
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    if is_file:
        (folder / "chat_template.jinja").write_text(template)
    else:
        config["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("is_file", [False, True])
@pytest.mark.parametrize("template", TEMPLATES)
def test_prompts_are_those_of_apply_chat_template(folder, template, is_file):
    write_template(folder, TEMPLATES[template], is_file)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    for name, chat in CHATS.items():
        try:
            expected = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        except jinja2.exceptions.TemplateError as refused:
            assert name == "system" and template == "mistral"
            with pytest.raises(_chat.ChatError, match=str(refused)):
                _chat.render(folder, chat)
            continue
        assert _chat.render(folder, chat) == expected


def test_a_template_cannot_reach_python(folder):
    for attack in ("{{ ''.__class__.__mro__ }}", "{{ messages.append(1) }}", "{{ cycler.__init__.__globals__ }}"):
        write_template(folder, attack, is_file=True)
        with pytest.raises(_chat.ChatError):
            _chat.render(folder, CHATS["one"])


@pytest.mark.parametrize(
    "template",
    ["{{ 1 / 0 }}", "{{ 'a' + 1 }}", "{{ messages[0].content % 1 }}{{ {}['x']() }}", "{% for i in range(10**9) %}x{% endfor %}",
     "{{ raise_exception('') }}", "{% if %}"],
)  # fmt: skip
def test_a_template_that_fails_is_one_error(folder, template):
    write_template(folder, template, is_file=True)
    with pytest.raises(_chat.ChatError, match="the chat template fails: ."):
        _chat.render(folder, CHATS["one"])


def test_odd_templates_are_one_error(folder):
    write_template(folder, "", is_file=True)
    (folder / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(_chat.ChatError, match="chat_template.jinja: .*utf-8"):
        _chat.render(folder, CHATS["one"])
    default = {"name": "default", "template": CHATML}
    for several in (["x"], [{"template": "x"}], [{"name": "tool_use", "template": "x"}], [{"name": "default"}], 5, {}):
        write_template(folder, several, is_file=False)
        with pytest.raises(_chat.ChatError, match="has no chat template"):
            _chat.render(folder, CHATS["one"])
    write_template(folder, [{"name": "tool_use", "template": "x"}, default], is_file=False)
    assert _chat.render(folder, CHATS["one"]).endswith("<|im_start|>assistant\n")


@pytest.mark.skipif(not PROGRAM.exists(), reason="the program comes with the installed package: pip install .")
def test_what_fails_is_said_in_one_harmless_line(folder):
    for template, says in (
        (r"{{ raise_exception('\x1b[2J\n') }}", r"the chat template fails: \x1b[2J\n"),
        ("{{ 'a' * 300000 }}", "cannot start the program: "),
        (r"{{ '\x00' }}", "cannot start the program: "),
    ):
        write_template(folder, template, is_file=True)
        command = [sys.executable, "-m", "c2r", "generate", folder, "--chat", "x"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1), done.stderr
        assert says in done.stderr and "\x1b" not in done.stderr


def test_messages_are_an_array_or_one_text():
    assert _chat.messages_of("[1] is a list") == [{"role": "user", "content": "[1] is a list"}]
    assert _chat.messages_of(json.dumps(CHATS["three"])) == CHATS["three"]
    assert _chat.messages_of("\n" + json.dumps(CHATS["three"], indent=2)) == CHATS["three"]
    with pytest.raises(_chat.ChatError, match="not JSON"):
        _chat.messages_of('[{"role": "user"')
    with pytest.raises(_chat.ChatError, match="role and content"):
        _chat.messages_of('[{"role": "user"}]')


@pytest.mark.skipif(not PROGRAM.exists(), reason="the program comes with the installed package: pip install .")
def test_the_command_continues_the_ids_of_apply_chat_template(folder, tmp_path):
    write_template(folder, CHATML, is_file=True)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    for chat in CHATS.values():
        ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True)["input_ids"]
        (tmp_path / "prompt.txt").write_text(_chat.render(folder, chat))
        words = ["tokenize", folder, tmp_path / "prompt.txt", "--no-template", "--json"]
        done = subprocess.run([PROGRAM, *words], capture_output=True, text=True, check=True)
        assert json.loads(done.stdout)["ids"] == ids
    options = ["--max-new-tokens", "20", "--dtype", "f32", "--threads", "1"]
    command = [sys.executable, "-m", "c2r", "generate", folder, *options]
    by_ids = subprocess.run(
        [PROGRAM, *command[3:], "--tokens", json.dumps(ids)], capture_output=True, text=True, check=True
    )
    expected = tokenizer.decode([int(i) for i in by_ids.stdout.split()], skip_special_tokens=True)
    for words, given in (
        (["--chat", json.dumps(chat)], None),
        ([f"--chat={json.dumps(chat)}"], None),
        (["--chat", "-"], json.dumps(chat)),
    ):
        done = subprocess.run(
            [*command, *words], input=given, capture_output=True, text=True, check=False, errors="replace"
        )
        assert (done.returncode, done.stdout.rstrip("\n")) == (0, expected.replace("\r", "\n").rstrip("\n")), (
            done.stderr
        )
