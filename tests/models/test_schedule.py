from components.models.schedule import learning_rate_factor


def test_warms_up_and_then_falls_towards_zero():
    """The factor rises to one during the warm-up and never rises again."""
    factors = [learning_rate_factor(step, 100, 0.2) for step in range(100)]

    assert sorted(factors[:21]) == factors[:21]
    assert 1.0 == factors[20]
    assert sorted(factors[20:], reverse=True) == factors[20:]
    assert 0 < factors[-1] < 0.001


def test_one_step_has_the_peak_rate():
    """The shortest training is not one without learning."""
    assert 1.0 == learning_rate_factor(0, 1, 0.2)
