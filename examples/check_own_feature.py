"""Does a feature of one's own know the future? This one does: it is scaled by the whole history."""

import jaxppo

check = jaxppo.check_lookahead(lambda b: (b.close - b.close.mean()) / b.close.std(), jaxppo.synthetic_market(27)[:2])
print(check.passed, check.explanation)  # False: feature_0 of SYN_A at bar 0 ...
