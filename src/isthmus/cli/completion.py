"""`isthmus completion`: the script that teaches a shell to complete isthmus's commands and options."""

import click
from click.shell_completion import get_completion_class

EXAMPLES = """\b
Examples:
  eval "$(isthmus completion bash)"                      # in ~/.bashrc
  eval "$(isthmus completion zsh)"                       # in ~/.zshrc
  isthmus completion fish > ~/.config/fish/completions/isthmus.fish
"""


@click.command(epilog=EXAMPLES)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of SHELL."""
    complete = get_completion_class(shell)
    assert complete is not None
    click.echo(complete(ctx.find_root().command, {}, "isthmus", "_ISTHMUS_COMPLETE").source())
