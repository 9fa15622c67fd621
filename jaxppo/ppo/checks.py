"""Whether a configuration can be run: everything that is wrong with it, found before anything is read or built."""

from __future__ import annotations

from jaxppo.agent.encoders import check_encoder
from jaxppo.config.checks import check_config
from jaxppo.config.schema import Config
from jaxppo.env.trading import env_spec
from jaxppo.market.asset_classes import class_fees
from jaxppo.market.context import contexts
from jaxppo.market.features import feature_groups, min_bars
from jaxppo.market.outside import outside_spans
from jaxppo.market.resample import parse_longer


def check_program(config: Config) -> Config:
    """`check_config`, and what the named encoder, action table, reward and asset classes ask of it; builds nothing.

    Raises:
      ConfigError: an unknown name, or numbers that do not fit together.
    """
    check_config(config)
    check_encoder(config.agent)
    env_spec(config.env, config.reward)
    min_bars(feature_groups(config.features), config.features.scale_window)
    contexts(config.features)
    outside_spans(config.features)
    if config.data.resample is not None:
        parse_longer(config.data.resample, "resample")
    class_fees(config.env)
    return config
