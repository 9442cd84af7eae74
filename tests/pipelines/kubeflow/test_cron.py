from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from croniter import croniter

from components.errors import ParameterError
from pipelines.kubeflow.cron import DESCRIPTORS, Cron

START = datetime(2026, 11, 22, 17, 46, 11, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "reasons"),
    [
        ("0 3 * * *", ["six fields", "got 5 fields", "fire 24 times a day", "'0 0 3 * * *'"]),
        ("*/5 * * * *", ["got 5 fields", "more than 24 times a day", "'0 */5 * * * *'"]),
        ("61 * * * * *", ["the second must be 0-59", "'61'"]),
        ("0 0 31 2 * *", ["the hour must be 0-23", "'31'"]),
        ("0 0 0 31 2 *", ["must fire within five years", "never comes"]),
        ("0 0 0 31 4,6,9,11 ?", ["must fire within five years"]),
        ("0 0 3 * * 1 2027", ["got 7 fields"]),
        ("@dailyy", ["'@dailyy'", "Did you mean @daily?"]),
        ("@reboot", ["must be one of @yearly"]),
        ("", ["got 0 fields in ''"]),
        ("   ", ["got 0 fields in ''"]),
        ("0 0 3 * * 7", ["the day of week must be 0-6 or sun"]),
        ("0 0 3 0 * *", ["the day of month must be 1-31"]),
        ("0 0 3 * 13 *", ["the month must be 1-12 or jan"]),
        ("0 60 3 * * *", ["the minute must be 0-59"]),
        ("0 0 3 * * mon-", ["the day of week must be"]),
        ("0 0 3 L * *", ["the day of month must be 1-31", "'L'"]),
        ("0 0 3 ,, * *", ["the day of month must be"]),
        ("0 0 3-1 * * *", ["the range of the hour must not run backwards"]),
        ("0 */0 3 * * *", ["the step of the minute must be"]),
        ("0 0/x 3 * * *", ["the step of the minute must be"]),
        ("0 0 ٣ * * *", ["the hour must be 0-23"]),
        ("0 -5 3 * * *", ["the minute must be 0-59"]),
        ("CRON_TZ=UTC 0 0 3 * * 1", ["got 7 fields"]),
        ("@every", ["must be one of"]),
        ("@every soon", ["must have a duration"]),
        ("@every 0s", ["must have a duration"]),
        ("@every 1h 30m", ["must have a duration"]),
    ],
)
def test_refusals_say_what_is_wrong(text: str, reasons: list[str]) -> None:
    """What Kubeflow would refuse, misread or never fire is refused with the reason."""
    with pytest.raises(ParameterError) as refused:
        Cron.parse(text)

    assert [] == [reason for reason in reasons if reason not in str(refused.value)]
    assert 64 == refused.value.exit_code


def test_all_wrong_fields_are_reported_at_once() -> None:
    """Three wrong fields give three problems."""
    with pytest.raises(ParameterError) as refused:
        Cron.parse("61 60 24 * * *")

    assert 3 == len(refused.value.problems)


@pytest.mark.parametrize(
    "text",
    [
        "0 0 3 * * 1",
        "0 0 3 * * *",
        "30 15 */6 * * *",
        "0 0 0 29 2 *",
        "0 0 0 31 * *",
        "0 0 12 1,15 * *",
        "0 0 12 13 * 5",
        "0 10-50/20 8-18/5 * * mon-fri",
        "5,35 59 23 * dec,jan sat",
        "0 30 2 28-31 * *",
        "15 0 0 1 JAN *",
        *(DESCRIPTORS[name] for name in sorted(DESCRIPTORS)),
    ],
)
@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata"])
def test_next_firings_agree_with_croniter(text: str, zone: str) -> None:
    """Eight firings in a row are those an independent library computes."""
    start = START.astimezone(ZoneInfo(zone))
    independent = croniter(text, start, second_at_beginning=True, max_years_between_matches=10)
    expected = [independent.get_next(datetime) for _ in range(8)]

    assert expected == Cron.parse(text).next_times(start, ZoneInfo(zone), 8)


@pytest.mark.parametrize("name", sorted(DESCRIPTORS))
def test_descriptors_are_what_they_stand_for(name: str) -> None:
    """A descriptor fires when its six fields do."""
    assert Cron.parse(DESCRIPTORS[name]).next_times(START, UTC, 5) == Cron.parse(name).next_times(START, UTC, 5)


def test_every_is_an_interval() -> None:
    """`@every 1h30m` fires every 90 minutes."""
    expected = [START + timedelta(minutes=90), START + timedelta(minutes=180)]

    assert expected == Cron.parse("@every 1h30m").next_times(START, UTC, 2)


def test_a_starred_day_field_narrows_the_other() -> None:
    """As in robfig/cron, `*/2` and a weekday must both hold, while two plain day fields are alternatives."""
    both = Cron.parse("0 0 0 */2 * mon").next_times(START, UTC, 4)
    either = Cron.parse("0 0 0 1 * mon").next_times(START, UTC, 4)

    assert [(11, 23), (12, 7), (12, 21), (1, 11)] == [(t.month, t.day) for t in both]
    assert [(11, 23), (11, 30), (12, 1), (12, 7)] == [(t.month, t.day) for t in either]


def test_an_hour_skipped_in_spring_does_not_fire() -> None:
    """02:30 does not exist on the day the clocks go forward, so that day has no firing."""
    zone = ZoneInfo("Europe/Berlin")
    found = Cron.parse("0 30 2 * * *").next_times(datetime(2027, 3, 27, 12, tzinfo=zone), zone, 2)

    assert [(29, 2, 30), (30, 2, 30)] == [(t.day, t.hour, t.minute) for t in found]


def test_an_hour_repeated_in_autumn_fires_twice() -> None:
    """02:30 comes twice when the clocks go back, and the controller fires both times."""
    zone = ZoneInfo("Europe/Berlin")
    found = Cron.parse("0 30 2 * * *").next_times(datetime(2027, 10, 30, 12, tzinfo=zone), zone, 3)

    assert [(0, 30), (1, 30), (1, 30)] == [(t.astimezone(UTC).hour, t.minute) for t in found]


def test_spaces_are_normalised() -> None:
    """Tabs and repeated spaces do not change the expression that is sent."""
    assert "0 0 3 * * 1" == Cron.parse(" 0\t0  3 * * 1 ").text
