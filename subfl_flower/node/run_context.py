"""The facts of a run, made from its configuration and the shape of the clients' data: the same on every machine."""

from __future__ import annotations

from subfl_flower.config import Config
from subfl_flower.node.domain import domain_of
from subfl_flower.privacy.accountant import for_rounds
from subfl_flower.registry import method_settings
from subfl_flower.wire.contract import RunContext
from subfl_flower.wire.roster import Shape


def run_context(config: Config, shape: Shape, run_id: str) -> RunContext:
    """The facts that a run's clients and strategy know.

    Args:
        config: of the run.
        shape: of the clients' data.
        run_id: of the run.
    """
    network = domain_of(config).network(config, shape)
    return RunContext(
        settings=method_settings(config.method),
        model=config.model,
        optimizer=config.optimizer,
        task=config.task,
        privacy=for_rounds(config.privacy, config.federation.rounds),
        aggregation=config.aggregation,
        secure_sums=config.secure_sums,
        seed=config.seed,
        num_rounds=config.federation.rounds,
        local_epochs=config.federation.local_epochs,
        fraction=config.federation.fraction,
        run_id=run_id,
        shape=shape,
        network=network,
        initial=domain_of(config).initial_parameters(config, shape),
        absent_features=config.wire.absent_features,
        audit=config.record.audit,
        evaluation_modes=config.record.evaluation_modes,
        test=config.record.test,
    )
