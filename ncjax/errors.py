"""The one error a user can cause."""


class InputError(ValueError):
    """Something the user gave cannot be used. The message says what, where, and what to do instead."""
