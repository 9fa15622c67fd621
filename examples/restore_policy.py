"""Read a policy back and ask what it does with the newest bar of its own data.

python examples/restore_policy.py runs/my-run
"""

import sys

import jaxppo

policy = jaxppo.restore_policy(sys.argv[1])  # the best by fitness; or a second argument: "latest", "final", an update
print(policy.info.update, policy.info.fitness, policy.info.config.env)
print(policy.info.feature_names, policy.info.actions.labels)

data = policy.info.config.data.data
bars = jaxppo.load_bars(data) if data else jaxppo.synthetic_market(policy.info.config.data.market_seed)
decision = jaxppo.decide(policy, bars[0])  # flat; or give the account that holds a position
print(bars[0].symbol, decision.action, decision.probabilities)  # for the next open
