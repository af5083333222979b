"""What both commands share: flags parsed, and one clear line with exit status 2 for what a user can mend."""

import sys
from collections.abc import Callable

from absl import app, flags, logging

from ncjax.errors import InputError


def run(main: Callable[[list[str]], None]) -> None:
    """Parse the command line, call `main` with what is not a flag, turn user errors into one line."""
    logging.set_verbosity(logging.WARNING)  # Orbax tells every step of a save
    try:
        app.run(main, flags_parser=_parse)
    except InputError as error:
        print(f"ncjax: {error}", file=sys.stderr)
        sys.exit(2)


def _parse(arguments: list[str]) -> list[str]:
    """absl's parser; config_flags raises many kinds for a wrong override or config file."""
    try:
        return flags.FLAGS(arguments)
    except SystemExit:  # nothing but --help and its kin ends here, to which absl gives status 1
        sys.exit(0)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError, SyntaxError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        told = lines[-1] if "Traceback" in str(error) or isinstance(error, OSError) else " ".join(lines)
        raise InputError(f"{told} (--help lists the flags, ncjax/config.py the settings)") from error
