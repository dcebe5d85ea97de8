"""`vitsearch completion`: the Tab key of the shell."""

import click
from click.shell_completion import get_completion_class

from vitsearch.cli.output import print_line

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> int:
    """Print what makes SHELL complete commands and options of vitsearch at the Tab key.

    \b
    bash:  echo 'eval "$(vitsearch completion bash)"' >> ~/.bashrc
    zsh:   echo 'eval "$(vitsearch completion zsh)"' >> ~/.zshrc
    fish:  vitsearch completion fish > ~/.config/fish/completions/vitsearch.fish
    """
    from vitsearch.cli.main import cli

    made = get_completion_class(shell)
    assert made is not None  # click has these three
    print_line(made(cli, {}, "vitsearch", "_VITSEARCH_COMPLETE").source())
    return 0
