"""The variables that Ray reads when it is imported, as we want them where the user has not said otherwise."""

from __future__ import annotations

import os
import secrets

# A worker without a GPU may see those that there are. Nothing is told to Ray's makers.
_ALWAYS = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "RAY_USAGE_STATS_ENABLED": "0"}
# The loopback is where a cluster listens; else Ray takes the machine's own address in its place.
_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
# Of Ray's processes that are started here: workers come when there are actors, not one for each core.
_OWN = {"RAY_AUTH_MODE": "token", "RAY_prestart_worker_first_driver": "0"}


def ray_environment(*, on_loopback: bool) -> dict[str, str]:
    """The environment of Ray's driver.

    Args:
        on_loopback: the cluster listens on nothing else.
    """
    return {**_ALWAYS, **(_LOOPBACK if on_loopback else {}), **os.environ}


def own_environment() -> dict[str, str]:
    """The environment of a driver that starts Ray's own processes on this machine.

    They listen on the loopback only, and a token that nobody else knows keeps other users of the machine from them.
    """
    return {**_OWN, "RAY_AUTH_TOKEN": secrets.token_hex(32), **ray_environment(on_loopback=True)}
