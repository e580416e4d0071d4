"""Says a line of each kind, as Python's logging and Spark's log4j would, and fails."""

import logging

logging.basicConfig(format="%(asctime)s - %(name)s - %(levelname)s - %(message)s", level=logging.DEBUG)
log = logging.getLogger("jobs.say")
log.debug("a detail")
log.info("a fact")
print("26/11/28 22:07:06 WARN TaskSetManager: a doubt", flush=True)
log.error("a fault")
raise ValueError("no such table: flights")
