import hypothesis
import numpy  # noqa: F401  loads the BLAS library that is limited below
import threadpoolctl
import torch

# Each worker has one core; the threads of two workers would fight over both.
torch.set_num_threads(1)
threadpoolctl.threadpool_limits(1)

hypothesis.settings.register_profile(
    "suite",
    derandomize=True,
    deadline=None,
    max_examples=50,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.register_profile("long", deadline=None, max_examples=1000)
hypothesis.settings.load_profile("suite")
