#!/usr/bin/env python3
"""gpus_table.py -- the table that bench/gpus-run ends in.

    gpus_table.py GPUS FILE     FILE: its lines of JSON, each with the name of what was run

A row is ours, what it stands beside, and ours over that; a - where one of the two was not measured, no row
where neither was.
"""
import json
import sys

gpus = int(sys.argv[1])
rows = [json.loads(line) for line in open(sys.argv[2])]


def first(**wanted):
    """The one value of what was run so: its `get`."""
    key = wanted.pop('get')
    return next((r[key] for r in rows if key in r and all(r.get(k) == v for k, v in wanted.items())), None)


def row(what, ours, beside, peer, form='%.0f'):
    if ours is None and peer is None:
        return
    show = lambda x, f: '-' if x is None else f % x
    ratio = ours / peer if ours is not None and peer else None
    print('%-44s %10s  %-34s %10s %6s' % (what, show(ours, form), beside, show(peer, form), show(ratio, '%.2f')))


def speed(name):
    return first(name=name, get='tokens_per_s_per_gpu')


def exposed(what, name, alone):
    """The part of a step that goes when calls between GPUs are local copies."""
    ours, local = first(name=name, get='step_ms'), first(name=alone, get='step_ms')
    part = None if ours is None or local is None else 100 * (ours - local) / ours
    if ours is not None or local is not None:
        row(what, part, 'at most', 10, '%.1f')


print('%-44s %10s  %-34s %10s %6s' % ('', 'ours', 'beside', '', 'ratio'))
for way in 'window', 'all':
    row('OLMoE-1B-7B, EP%d %s, tokens/s/GPU' % (gpus, way), speed('whole ' + way), "PyTorch's FSDP2",
        first(name='peer', model='olmoe', get='tokens_per_s_per_gpu'))
for way in 'window', 'all':
    exposed('  exposed communication, %s, %% of a step' % way, 'whole ' + way, 'whole alone')
kinds = [(name.replace('#', str(gpus)), one) for name, one in (
    ('DP#', 'one'), ('TP#', 'one'), ('CP#', 'one'), ('EP#', 'one'), ('EP# window', 'one'),
    ('TP# EP#', 'one'), ('CP# EP#', 'one'), ('DP#, 8 rows', 'one, 8 rows'), ('PP#, 8 rows', 'one, 8 rows'))]
for name, one in kinds:
    row('8 layers of it, %s, tokens/s/GPU' % name, speed(name), 'one GPU, as many tokens', speed(one))
for name, one in kinds[:-1]:
    exposed('  exposed communication, %s, %%' % name, name, name.replace(' window', '') + ' alone')
sizes = sorted({r['sent_MB'] for r in rows if r.get('call') == 'ncclAlltoAll over windows'})
for mb in sizes:
    nccl = first(call='ncclAlltoAll over windows', sent_MB=mb, get='GBps_sent')
    for call in 'out', 'back':
        ours = next((r['GBps_sent'] for r in rows if r.get('call') == call and abs(r['sent_MB'] / mb - 1) < .02), None)
        row('rows %s, %.1f MB, GB/s sent' % ('to experts' if call == 'out' else 'back', mb), ours,
            'ncclAlltoAll over windows', nccl)
for call in 'all_gather', 'reduce_scatter', 'all_reduce', 'all_to_all':
    for mib in 16, 256:
        row('%s, %d MiB, GB/s sent' % (call, mib), first(name='calls', call=call, MiB=mib, get='GBps_sent'),
            "PyTorch's", first(name='peer', call=call, MiB=mib, get='GBps_sent'))
