"""The command line. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Entry point of ``nnlite``: a user's mistake is one line and exit status 2, never a traceback."""
    from nnlite.cli.imports import collected_later

    with collected_later():
        import click

        from nnlite.cli.commands import nnlite
        from nnlite.errors import NnliteError

    try:
        nnlite.main(standalone_mode=False)
    except NnliteError as error:
        click.echo(f"nnlite: error: {error}", err=True)
        sys.exit(2)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt) as stop:
        # Click hides what it was behind an Abort; a run that was saved says how to go on.
        said = str(stop) or str(stop.__cause__ or "")
        click.echo(f"nnlite: interrupted{'; ' if said else ''}{said}", err=True)
        sys.exit(130)
    except BrokenPipeError:  # the reader (head, less) has gone
        sys.stderr.close()
        sys.exit(141)
