"""Wall time of calls made one at a time."""

import statistics
import time

import numpy as np

PASSES = 5


def call_ms(function, arguments, passes=PASSES):
    """Median over arguments of each one's median over passes, after one pass not counted."""
    times = np.empty((passes, len(arguments)))
    for argument in arguments:
        function(argument)
    for row in times:
        for place, argument in enumerate(arguments):
            begin = time.perf_counter()
            function(argument)
            row[place] = time.perf_counter() - begin
    return float(np.median(np.median(times, axis=0))) * 1e3


def best_seconds(function, passes=PASSES):
    times = []
    for _ in range(passes):
        begin = time.perf_counter()
        function()
        times.append(time.perf_counter() - begin)
    return min(times), statistics.median(times)
