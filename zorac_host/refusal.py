"""A refusal as data: its id, which has its own exit code, and its message."""


class Refusal(Exception):
    """The command cannot be done; `str(refusal)` says what is needed.

    Attributes:
        refusal: The id, one of ``zorac_deploy.errors.REFUSALS``.
    """

    def __init__(self, message: str, refusal: str) -> None:
        super().__init__(message)
        self.refusal = refusal

    def answer(self) -> dict[str, dict[str, str]]:
        """The answer of a program that refuses."""
        return {"refusal": {"id": self.refusal, "message": str(self)}}
