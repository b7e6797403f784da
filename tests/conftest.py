"""What all tests share: hypothesis's profiles, chosen by HYPOTHESIS_PROFILE (`default`, `ci`, `long`)."""

import os

from hypothesis import HealthCheck, settings

# Never a deadline: how long an example takes says something about the machine, not about the code.
CALM = [HealthCheck.too_slow]  # it goes by the clock too
settings.register_profile("default", deadline=None, max_examples=60, suppress_health_check=CALM)
# The same examples in every run: a red CI can be reproduced, and a green one does not turn red by luck.
settings.register_profile(
    "ci",
    deadline=None,
    max_examples=100,
    derandomize=True,
    print_blob=True,
    database=None,
    suppress_health_check=CALM,
)
settings.register_profile("long", deadline=None, max_examples=5_000, print_blob=True, suppress_health_check=CALM)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
