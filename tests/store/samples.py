"""Records for tests."""

from store.records import Correction, Interaction, Message, Rating

MODEL = "sha256:" + "0" * 64


def interaction(number: int, text: str = "") -> Interaction:
    """The `number`-th question and answer."""
    return Interaction(
        messages=(Message("system", "be brief"), Message("user", text or f"question {number}")),
        answer=f"answer {number}",
        model=MODEL,
        stack=("sha256:" + "1" * 64,),
        time=1000.0 + number,
    )


def correction(of: str, number: int, text: str = "") -> Correction:
    """A correction of the interaction with id `of`."""
    return Correction(interaction=of, corrected=text or f"better {number}", reason="habit", time=2000.0 + number)


def rating(of: str, value: int, number: int = 0) -> Rating:
    """A rating of the interaction with id `of`."""
    return Rating(interaction=of, value=1 if value > 0 else -1, time=3000.0 + number)
