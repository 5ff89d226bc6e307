"""The verifier: `python -m services.verifier`, until SIGTERM or SIGINT. It serves its metrics alone."""

import os

from libs.runtime import failpoints, telemetry
from libs.runtime.background import Background
from libs.runtime.config import Env
from libs.runtime.server import GRACE_SECONDS, run, settle_heap, stop_signal, until_free
from services.verifier.settings import read
from services.verifier.verification import connected
from services.verifier.watch import Watch


async def main(env: Env) -> None:
    """Watch with this configuration; it raises what keeps the process from starting."""
    settings = read(env)
    failpoints.configure("verifier", env)
    env.check()
    telemetry.configure("verifier", settings.log_level)
    background = Background()
    async with connected(settings.database_urls) as reader:
        watch = Watch(reader)
        metrics = telemetry.MetricsServer(settings.metrics_listen, lambda: watch.ready)
        await until_free(settings.metrics_listen)
        await metrics.start()
        stop = stop_signal()
        background.spawn(watch.keep(background.rest), "watch")
        settle_heap()
        telemetry.logger().info("serving", metrics_port=metrics.port)
        await stop.wait()
        telemetry.logger().info("draining")
        await background.drain(GRACE_SECONDS)
        await metrics.stop()
    telemetry.logger().info("stopped")


if __name__ == "__main__":
    raise SystemExit(run(main(Env(os.environ))))
