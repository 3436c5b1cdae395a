"""The variables that Ray reads when it is imported, as we want them where the user has not said otherwise."""

from __future__ import annotations

import os
import secrets

# A worker without a GPU may see those that there are. Nothing is told to Ray's makers.
_ALWAYS = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "RAY_USAGE_STATS_ENABLED": "0"}
# Of Ray's own processes on this machine: they listen on the loopback only. Workers come when there are actors: who
# connects first only holds the cluster.
_LOCAL = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_prestart_worker_first_driver": "0",
}


def prepare_ray(*, local: bool) -> None:
    """Set the variables of this process, and of those that it starts.

    Args:
        local: Ray is started here. A token that nobody else knows keeps other users of the machine from its processes.
    """
    own = {**_LOCAL, "RAY_AUTH_TOKEN": secrets.token_hex(32)} if local else {}
    for name, value in {**_ALWAYS, **own}.items():
        os.environ.setdefault(name, value)
