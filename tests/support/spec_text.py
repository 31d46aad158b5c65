"""A spec as text, to be changed by tests."""

SPEC = """\
name: small
seeds: [0]
dataset: {type: gaussian}
slicer: {type: class_group}
schedule: {type: linear}
experts:
  - {type: unet, copies: 2}
gate: {type: softmax}
objective:
  - {type: nll}
  - {type: entropy, weight: 0.1}
sampler: {type: ddim}
metrics: [{type: parameters}, {type: network_calls}]
training: {steps: 4}
"""


TOP_KEYS = (
    "name, seeds, device, dataset, slicer, schedule, trunk, experts, gate, objective, sampler, metrics, training, "
    "evaluation"
)


def changed(*replacements):
    """SPEC with some pieces of text replaced."""
    text = SPEC
    for old, new in replacements:
        assert old in text, old
        text = text.replace(old, new)
    return text
