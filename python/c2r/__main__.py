"""``python -m c2r ...``: the command line, as the program c2r of this package.

``python -m c2r generate FOLDER --chat TEXT`` is an addition: it renders the model's chat template, which the program
does not. TEXT is a message of the user, or a JSON array of messages with role and content; ``-`` reads either from
standard input. The other options are those of ``c2r generate``.
"""

import os
import pathlib
import sys

from c2r import _chat


def fail(text):
    """Ends with one line, in which nothing of a template or a file can control the terminal."""
    printable = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))
    sys.exit(f"python -m c2r generate: {printable[:4000]}")


def with_rendered_chat(arguments):
    """``generate FOLDER --chat TEXT ...`` with the rendered prompt in place of the chat."""
    at = next((i for i, word in enumerate(arguments) if word == "--chat" or word.startswith("--chat=")), None)
    if at is None or arguments[:1] != ["generate"]:
        return arguments
    _, is_joined, text = arguments[at].partition("=")
    rest = arguments[:at] + arguments[at + (1 if is_joined else 2) :]
    if not is_joined:
        if at + 1 == len(arguments):
            fail("--chat needs a TEXT")
        text = arguments[at + 1]
    folder = next((word for word in rest[1:] if (pathlib.Path(word) / "config.json").exists()), None)
    if folder is None:
        fail("--chat needs the folder of a model, with config.json")
    try:
        messages = _chat.messages_of(sys.stdin.read() if text == "-" else text)
        prompt = _chat.render(folder, messages)
    except _chat.ChatError as error:
        fail(error)
    return [*rest, "--no-template", f"--prompt={prompt}"]


def main():
    program = pathlib.Path(__file__).with_name("c2r")
    if not program.exists():
        sys.exit(f"python -m c2r: the program {program} is missing; pip install . of the repository puts it there")
    words = with_rendered_chat(sys.argv[1:])
    try:
        os.execv(program, ["c2r", *words])
    except (OSError, ValueError) as error:  # a prompt that is too long for a command line, or has a zero character
        fail(f"cannot start the program: {error}")


if __name__ == "__main__":
    main()
