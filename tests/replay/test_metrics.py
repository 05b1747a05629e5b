"""The figures of a replay, on logs small enough to count by hand."""

from learner.replay_metrics import NEVER, Outcome, Rate, corrections_to_fix, curve, figures


def _log(*steps: tuple[str, int, int]) -> list[Outcome]:
    """Outcomes from (request, base right, learner right)."""
    seen: set[str] = set()
    log = []
    for request, off, on in steps:
        log.append(Outcome(request=request, off=bool(off), on=bool(on), first=request not in seen))
        seen.add(request)
    return log


LOG = _log(("a", 0, 0), ("b", 1, 1), ("a", 0, 0), ("a", 0, 1), ("c", 0, 1), ("a", 0, 0), ("d", 0, 0), ("b", 1, 0))


def test_errors_are_counted_over_all_first_seen_and_repeated_requests() -> None:
    """Eight requests, four prompts: counted by hand."""
    on, off = figures([LOG], "on"), figures([LOG], "off")
    assert (on.all, on.first, on.repeated) == (Rate(5, 8), Rate(2, 4), Rate(3, 4))
    assert (off.all, off.first, off.repeated) == (Rate(6, 8), Rate(3, 4), Rate(3, 4))


def test_the_same_mistake_again_counts_only_after_a_correction_in_the_same_arm() -> None:
    """`a` was corrected before its 2nd, 3rd and 4th time; `b` never before its last."""
    assert figures([LOG], "on").again == Rate(2, 3)
    assert figures([LOG], "off").again == Rate(3, 3)


def test_corrections_to_fix_stop_at_the_first_right_answer() -> None:
    """`a` needed two corrections; `d` never came back and had no chance."""
    assert corrections_to_fix(LOG, "on") == [2.0]
    assert corrections_to_fix(LOG, "off") == [NEVER]


def test_a_prompt_never_fixed_counts_as_above_any_number() -> None:
    """The median of one fixed and two unfixed prompts is never."""
    log = _log(("a", 0, 0), ("a", 0, 1), ("b", 0, 0), ("b", 0, 0), ("c", 0, 0), ("c", 0, 0))
    measured = figures([log], "on")
    assert measured.to_fix == NEVER
    assert measured.unfixed == Rate(2, 3)


def test_the_future_of_a_log_is_its_last_two_fifths() -> None:
    """Of ten requests the last four are the future, for each user on its own."""
    log = _log(*[(f"p{i}", 0, i >= 6) for i in range(10)])
    assert figures([log, log], "on").late == Rate(0, 8)
    assert figures([log, log], "off").late_first == Rate(8, 8)


def test_nothing_measured_is_none_and_not_zero() -> None:
    """An empty log has no error rate at all."""
    measured = figures([[]], "on")
    assert measured.all.percent is None
    assert measured.to_fix is None


def test_the_curve_gives_each_user_the_same_weight() -> None:
    """One user always wrong over 10 requests and one always right over 100 average to one half."""
    wrong, right = _log(*[("a", 0, 0)] * 10), _log(*[("a", 1, 1)] * 100)
    assert curve([wrong, right], "on", 5) == [50.0] * 5


def test_a_stretch_without_requests_leaves_a_gap() -> None:
    """Prompts never seen before only occur at the beginning of this log."""
    log = _log(*[("a", 0, 0)] * 4)
    assert curve([log], "on", 2, lambda outcome: outcome.first) == [100.0, None]
