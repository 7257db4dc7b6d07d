"""The exception that means "your input, not our code": its message is a sentence for the user."""


class BadInput(ValueError):
    """What was wrong, what came, what to do: one sentence, shown to the user as it is."""


class OutOfMemory(BadInput):
    """A method would need more memory than is free; raised before it is tried."""
