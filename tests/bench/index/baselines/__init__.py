"""Published methods of sparse attention behind one interface: output error against bytes read.

    method = Quest().build(keys, values, training_queries, group, logit_scale)
    outputs, bytes_read = method.attend(queries_of_one_group, budget=0.05)

`python -m baselines.measure SET --out FILE.json` measures all of them on a set of vectors.
"""
